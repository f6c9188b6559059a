//! How archives are compressed in binary caches.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

/// Most memory an xz dictionary may ask for, in KiB. The largest preset asks for 64 MiB.
const XZ_MEMORY_KIB: u32 = 200 * 1024;
/// Largest Zstandard window that is read, as a power of two: what `zstd --long` makes.
const ZSTD_WINDOW_LOG: u32 = 27;
const ZSTD_LEVEL: i32 = 3;
/// What the Brotli decoder reads at a time, in bytes.
const BUFFER_LENGTH: usize = 64 << 10;
/// Archives of this size are compressed by several threads, in pieces.
const ZSTD_PARALLEL_BYTES: u64 = 8 << 20;
const ZSTD_THREADS: u32 = 2;
/// The size of these pieces: a few of them are in memory for each thread.
const ZSTD_JOB_BYTES: u32 = 2 << 20;
const XZ_PRESET: u32 = 6;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// Brotli, which is only read.
    Brotli,
    /// bzip2: what Nix takes an archive for of which nothing is said.
    Bzip2,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

/// A compression that nothing here can undo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compression `{}` is not supported; zstd, xz, gzip, bzip2, br and none are", .0.escape_debug())]
pub struct UnknownCompression(pub String);

impl Compression {
    /// What narinfo files call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Brotli => "br",
            Self::Bzip2 => "bzip2",
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
            Self::Brotli => ".nar.br",
            Self::Bzip2 => ".nar.bz2",
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
            Self::Brotli => Box::new(brotli_decompressor::Decompressor::new(compressed, BUFFER_LENGTH)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(compressed)),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(compressed, true, XZ_MEMORY_KIB)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    /// Compresses what `write` writes, `length` bytes, into a sink that is given back. The result is a function of these bytes.
    ///
    /// # Errors
    /// When the sink or `write` fails, or this compression is only read.
    pub fn encode<W: Write, T>(
        self,
        sink: W,
        length: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> io::Result<(W, T)> {
        match self {
            Self::None => {
                let mut sink = sink;
                let result = write(&mut sink)?;
                Ok((sink, result))
            }
            Self::Brotli => Err(io::Error::new(io::ErrorKind::Unsupported, "Brotli is only read")),
            Self::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(sink, bzip2::Compression::best());
                let result = write(&mut encoder)?;
                Ok((encoder.finish()?, result))
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
                if length >= ZSTD_PARALLEL_BYTES {
                    // Its result does not depend on how many threads there are, but on there being any.
                    encoder.multithread(ZSTD_THREADS)?;
                    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB_BYTES))?;
                }
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
        let known = [Self::None, Self::Brotli, Self::Bzip2, Self::Gzip, Self::Xz, Self::Zstd];
        known.into_iter().find(|one| one.name() == text).ok_or_else(|| UnknownCompression(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let plain: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        check(&plain);
    }

    #[test]
    fn what_several_threads_encode_is_decoded() {
        let plain: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let encode = || {
            let length = plain.len() as u64;
            Compression::Zstd
                .encode(Vec::new(), length, |sink| plain.chunks(77_777).try_for_each(|c| sink.write_all(c)))
        };
        let (bytes, ()) = encode().unwrap();
        let mut back = Vec::new();
        Compression::Zstd.decode(&bytes[..]).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == plain);
        assert!(encode().unwrap().0 == bytes, "the same bytes each time");
    }

    fn check(plain: &[u8]) {
        let written = [Compression::None, Compression::Bzip2, Compression::Gzip, Compression::Xz, Compression::Zstd];
        for compression in written {
            let (bytes, ()) = compression.encode(Vec::new(), plain.len() as u64, |sink| sink.write_all(plain)).unwrap();
            let mut back = Vec::new();
            compression.decode(&bytes[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == plain, "{compression}");
            assert_eq!(compression.name().parse(), Ok(compression));
        }
        assert_eq!("lzip".parse::<Compression>(), Err(UnknownCompression("lzip".to_owned())));
        Compression::Brotli.encode(Vec::new(), 0, |_| Ok(())).unwrap_err();
    }

    const PLAIN: &str = "an archive, compressed with Brotli\n";
    /// Three times [`PLAIN`], by Brotli's own encoder.
    const BROTLI: &[u8] =
        b"\x1b\x68\x00\xe0\x1d\x89\x71\x2c\x8a\x47\x5f\x09\xb5\x50\xd8\xd8\x9b\x4e\x63\x73\x93\x93\x0a\x6d\
        \x74\x59\x49\x27\xff\xd4\x68\xc7\xbe\x20\xea\x0a\x75\xf6\xfc\x42\x07";

    #[test]
    fn brotli_is_read() {
        let whole = BROTLI;
        let decode = |bytes: &[u8]| {
            let mut plain = String::new();
            Compression::Brotli.decode(bytes).unwrap().read_to_string(&mut plain).map(|_| plain)
        };
        assert_eq!(decode(whole).unwrap(), PLAIN.repeat(3));
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        for index in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[index] ^= 0x10;
            let _ = decode(&changed);
        }
    }
}
