//! Percent-encoding of paths in addresses.

/// Encodes a relative path for an address: everything but letters, digits, `-`, `.`, `_` and `/`.
///
/// Debian's archives hold names with `+` and `~`. A server must treat `~` and `%7e` alike, but some object stores
/// read a bare `+` as a space, so both are written out.
pub(crate) fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Decodes `%41` to its byte; a `%` that starts no such triplet stands for itself.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions() {
        let path = "pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1~x_amd64.deb";
        let encoded = encode_path(path);
        assert_eq!(encoded, "pool/main/g/gcc-12/libstdc%2B%2B6_12.2.0-14%2Bdeb12u1%7Ex_amd64.deb");
        assert_eq!(decode(&encoded), path.as_bytes());
        assert_eq!(decode("%"), b"%");
        assert_eq!(decode("%4"), b"%4");
        assert_eq!(decode("%zz%41"), b"%zzA");
    }
}
