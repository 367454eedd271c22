//! A digest of bytes that never changes: not with the version of dpd or of the compiler, not with the machine's byte order.

/// FNV-1a, 64 bits (draft-eastlake-fnv). It is no defence against forgery.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let bytes = bytes.into_iter();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the draft.
    #[test]
    fn digests_are_those_of_the_draft() {
        let rows = [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ];
        for (text, digest) in rows {
            assert_eq!(fnv1a(text.bytes()), digest, "{text:?}");
        }
    }
}
