//! The checksums of the Internet, summed the plain way over whole packets.

use std::net::IpAddr;

/// The ones' complement of the ones' complement sum (RFC 1071). Over data that holds a right checksum it is 0.
pub fn internet(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What stands in front of a transport header for its checksum (RFC 9293 3.1, RFC 8200 8.1).
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut bytes = [src.octets(), dst.octets()].concat();
            bytes.extend([0, protocol]);
            bytes.extend((length as u16).to_be_bytes());
            bytes
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut bytes = [src.octets(), dst.octets()].concat();
            bytes.extend((length as u32).to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
            bytes
        }
        _ => panic!("{src} and {dst} are of two families"),
    }
}

/// CRC32c as SCTP uses it (RFC 9260 appendix A), in the order in which its bytes are sent.
pub fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    (!crc).to_le_bytes()
}
