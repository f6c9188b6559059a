//! Recognises and undoes compression: gzip (RFC 1952), xz, and Zstandard (RFC 8878).

use std::io::{self, BufRead, Read};

use thiserror::Error;

/// Most memory an xz dictionary may ask for, in KiB. The largest preset asks for 64 MiB.
const XZ_MEMORY_KIB: u32 = 200 * 1024;
/// Largest Zstandard window, as a power of two: what `zstd --long` makes.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a stream of bytes is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, with any number of members.
    Gzip,
    /// xz, with any number of streams.
    Xz,
    /// Zstandard, with any number of frames.
    Zstd,
}

/// A compression that is known by name but cannot be undone.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{name} compression is not supported; gzip, xz and zstd are")]
pub struct Unsupported {
    /// What it is called.
    pub name: &'static str,
}

impl Compression {
    /// Recognises a compression by the first bytes of a stream.
    pub fn detect(start: &[u8]) -> Result<Self, Unsupported> {
        let zstd_skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
        match start {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Compression::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Err(Unsupported { name: "bzip2" }),
            [0x5d, 0, 0, ..] => Err(Unsupported { name: "lzma" }),
            [b'L', b'Z', b'I', b'P', ..] => Err(Unsupported { name: "lzip" }),
            [0x1f, 0x9d, ..] => Err(Unsupported { name: "compress" }),
            _ if zstd_skippable => Ok(Compression::Zstd),
            _ => Ok(Compression::None),
        }
    }

    /// The plain bytes of a compressed stream. What follows the compressed data is an error of the reader.
    pub fn decode<'a>(self, compressed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Compression::None => Box::new(compressed),
            Compression::Gzip => Box::new(Members { decoder: flate2::bufread::GzDecoder::new(Box::new(compressed)) }),
            Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(compressed, true, XZ_MEMORY_KIB)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

/// gzip members one after the other. NUL bytes after the last are padding, as `gzip` itself sees it.
struct Members<'a> {
    decoder: flate2::bufread::GzDecoder<Box<dyn BufRead + 'a>>,
}

impl Read for Members<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() || self.at_end()? {
                return Ok(count);
            }
            let inner = std::mem::replace(self.decoder.get_mut(), Box::new(io::empty()));
            self.decoder = flate2::bufread::GzDecoder::new(inner);
        }
    }
}

impl Members<'_> {
    fn at_end(&mut self) -> io::Result<bool> {
        let compressed = self.decoder.get_mut();
        let mut padded = false;
        loop {
            let buffer = compressed.fill_buf()?;
            if buffer.is_empty() {
                return Ok(true);
            }
            let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
            padded |= zeros > 0;
            if zeros < buffer.len() {
                let garbage = || io::Error::new(io::ErrorKind::InvalidData, "bytes after the compressed data");
                return if padded { Err(garbage()) } else { Ok(false) };
            }
            compressed.consume(zeros);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn xz(plain: &[u8]) -> Vec<u8> {
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::encode_all(plain, 1).unwrap()
    }

    fn decode(compressed: &[u8]) -> io::Result<Vec<u8>> {
        let compression = Compression::detect(compressed).map_err(io::Error::other)?;
        let mut plain = Vec::new();
        compression.decode(compressed)?.take(1 << 20).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn each_compression_is_recognised_and_undone() {
        for encode in [gzip, xz, zstd] {
            assert_eq!(decode(&encode(b"some text")).unwrap(), b"some text");
            assert_eq!(decode(&encode(b"")).unwrap(), b"");
        }
        assert_eq!(decode(b"plain").unwrap(), b"plain");
        assert!(decode(b"BZh91AY").unwrap_err().to_string().contains("bzip2"));
    }

    #[test]
    fn parts_are_joined() {
        for encode in [gzip, xz, zstd] {
            let both = [encode(b"one"), encode(b"two")].concat();
            assert_eq!(decode(&both).unwrap(), b"onetwo");
        }
    }

    #[test]
    fn gzip_padding_is_ignored_and_garbage_is_not() {
        assert_eq!(decode(&[gzip(b"one"), vec![0; 70_000]].concat()).unwrap(), b"one");
        assert!(decode(&[gzip(b"one"), b"garbage".to_vec()].concat()).is_err());
        assert!(decode(&[gzip(b"one"), vec![0; 9], b"x".to_vec()].concat()).is_err());
        assert!(decode(&[xz(b"one"), b"garbage".to_vec()].concat()).is_err());
        assert!(decode(&[zstd(b"one"), b"garbage".to_vec()].concat()).is_err());
    }

    #[test]
    fn broken_streams_never_panic_and_truncated_ones_are_errors() {
        let plain: Vec<u8> = (0..2000u32).flat_map(|number| (number % 251).to_le_bytes()).collect();
        for encode in [gzip, xz, zstd] {
            let whole = encode(&plain);
            for length in 8..whole.len() {
                assert!(decode(&whole[..length]).is_err(), "{length} of {}", whole.len());
            }
            for index in 0..whole.len() {
                let mut broken = whole.clone();
                broken[index] ^= 0x55;
                drop(decode(&broken));
            }
        }
    }
}
