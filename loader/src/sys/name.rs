//! Names of maps and programs in the kernel.

/// `BPF_OBJ_NAME_LEN`: the size of a name in bytes, including the final zero.
pub(crate) const OBJ_NAME_LEN: usize = 16;

/// A name as the kernel accepts it: at most 15 letters, digits, `_` and `.`. Other bytes become
/// `_`.
pub(crate) fn object_name(name: &str) -> [u8; OBJ_NAME_LEN] {
    let mut out = [0; OBJ_NAME_LEN];
    let allowed =
        name.bytes().map(|byte| if byte.is_ascii_alphanumeric() || byte == b'.' { byte } else { b'_' });
    // The last byte stays the terminator.
    for (to, from) in out.iter_mut().take(OBJ_NAME_LEN - 1).zip(allowed) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_are_what_the_kernel_allows() {
        assert_eq!(&object_name("stats"), b"stats\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&object_name("inet_sock_set_state"), b"inet_sock_set_s\0");
        assert_eq!(&object_name("a-b c/d.e"), b"a_b_c_d.e\0\0\0\0\0\0\0");
        assert_eq!(&object_name(""), &[0; 16]);
    }
}
