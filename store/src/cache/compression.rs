//! How archives are compressed in binary caches.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

/// Most memory an xz dictionary may ask for, in KiB. The largest preset asks for 64 MiB.
const XZ_MEMORY_KIB: u32 = 200 * 1024;
/// Largest Zstandard window that is read, as a power of two: what `zstd --long` makes.
const ZSTD_WINDOW_LOG: u32 = 27;
const ZSTD_LEVEL: i32 = 3;
const XZ_PRESET: u32 = 6;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which is only read.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

/// A compression that nothing here can undo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compression `{}` is not supported; zstd, xz, gzip and none are", .0.escape_debug())]
pub struct UnknownCompression(pub String);

impl Compression {
    /// What narinfo files call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// What an archive's file name ends with.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => ".nar",
            Self::Gzip => ".nar.gz",
            Self::Xz => ".nar.xz",
            Self::Zstd => ".nar.zst",
        }
    }

    /// The plain bytes of a stream.
    ///
    /// # Errors
    /// When the decoder cannot be set up.
    pub fn decode<'a>(self, compressed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(compressed),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(compressed, true, XZ_MEMORY_KIB)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    /// Compresses what `write` writes, into a sink that is given back.
    ///
    /// # Errors
    /// When the sink or `write` fails.
    pub fn encode<W: Write, T>(
        self,
        sink: W,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> io::Result<(W, T)> {
        match self {
            Self::None => {
                let mut sink = sink;
                let result = write(&mut sink)?;
                Ok((sink, result))
            }
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(sink, flate2::Compression::default());
                let result = write(&mut encoder)?;
                Ok((encoder.finish()?, result))
            }
            Self::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(XZ_PRESET);
                let mut encoder = lzma_rust2::XzWriter::new(sink, options)?;
                let result = write(&mut encoder)?;
                Ok((encoder.finish()?, result))
            }
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, ZSTD_LEVEL)?;
                let result = write(&mut encoder)?;
                Ok((encoder.finish()?, result))
            }
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        let known = [Self::None, Self::Gzip, Self::Xz, Self::Zstd];
        known.into_iter().find(|one| one.name() == text).ok_or_else(|| UnknownCompression(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let plain: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd] {
            let (bytes, ()) = compression.encode(Vec::new(), |sink| sink.write_all(&plain)).unwrap();
            let mut back = Vec::new();
            compression.decode(&bytes[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == plain, "{compression}");
            assert_eq!(compression.name().parse(), Ok(compression));
        }
        assert_eq!("br".parse::<Compression>(), Err(UnknownCompression("br".to_owned())));
    }
}
