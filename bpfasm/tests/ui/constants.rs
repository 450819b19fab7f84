//! Constants that do not fit, and tokens that are not constants.

use bpfasm::bpf;

fn main() {
    bpf! {
        r1 = 0xffffffff; //~ 14 4294967295 does not fit: a 64-bit operation takes -2147483648 to 2147483647; `rN = C ll` loads more
        r1 += -2147483649; //~ 15 -2147483649 does not fit
        w1 = 4294967296; //~ 14 4294967296 does not fit: a 32-bit operation takes -2147483648 to 4294967295
        if r1 > 2147483648 goto +1; //~ 17 2147483648 does not fit
        *(u8 *)(r10 - 1) = 256; //~ 28 256 does not fit: a store of `u8` takes -128 to 255
        *(u64 *)(r10 - 8) = 4294967295; //~ 29 4294967295 does not fit: a store of `u64`
        r1 = *(u8 *)(r2 + 32768); //~ 27 32768 does not fit: an offset takes -32768 to 32767
        r1 = *(u8 *)(r2 - 32769); //~ 25 -32769 does not fit
        r1 = 0x1ffffffffffffffff ll; //~ 14 `0x1ffffffffffffffff` does not fit in 64 bits
        r1 = -0xffffffffffffffff ll; //~ 14 does not fit: a wide constant takes
        goto +32768; //~ 14 32768 does not fit: an offset takes -32768 to 32767
        r1 = 5u32; //~ 14 `5u32` is not a number; there are 12, 0x12, 0b11 and 0o12, without a suffix
        r1 = 1.5; //~ 14 `1.5` is not a number
        r1 = map_fd 4294967295 ll; //~ 21 4294967295 does not fit
        r1 = map_value_fd 3 + 4294967296 ll; //~ 31 4294967296 does not fit
        call 4294967296; //~ 14 4294967296 does not fit
        r1 = PORT; //~ 14 `PORT` is not a constant; there are numbers, fields `PORT.member`, sizeof(…), exists(…), shift(…), mask(…), enum(…), params(…), `const PORT` and, in bpf!, `{PORT}` for a Rust value
        r1 = size_of(sock); //~ 14 `size_of` is not a constant
        r1 = sizeof(sock) + 4; //~ 29 only a field takes an addend: `sock.sk_protocol + 4`
        r1 = sock.a + sock.b; //~ 23 an instruction takes one symbol
        r1 = 4 - sock.b; //~ 18 an instruction takes one symbol
        *(u32 *)(r1 + 0) = const PORT; //~ 28 a store's symbol fills its offset
        r0 = *(u8 *)skb[sock.a]; //~ 25 expected a number, which no symbol can fill here, found a symbol
        r1 = sock.; //~ 19 expected a member's name
    };
}
