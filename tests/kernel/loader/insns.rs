//! Every class of instructions, encoded by bpfasm, verified and run by the kernel, computes the
//! right result.

use bpfasm::{Fragment, bpf};
use kernel_tests::requirements::{Availability, Skip, requires};
use kernel_tests::runner::{Outcome, Test, test};
use loader::LoadError;

use super::{TEST_HOOK, TRACEPOINT, load_only, only, raw_tp, run, try_load};

pub const TESTS: &[Test] = &[
    test("loader::every_instruction_class_computes", every_instruction_class_computes),
    test("loader::local_functions_have_frames_of_their_own", local_functions_have_frames_of_their_own),
    test("loader::fetching_atomics_compute", fetching_atomics_compute),
    test("loader::newer_instructions_compute", newer_instructions_compute),
];

/// The value of r6 in the programs; the value of r7 is 7.
const A: u64 = 0xffff_fff0_1234_5678;

/// Exits with this number unless `r1` has this value.
fn expect(number: u32, value: u64) -> Fragment {
    bpf! {
        r2 = {value} ll;
        w0 = {number};
        if r1 == r2 goto good;
        exit;
    good:
    }
}

/// Runs all steps in one program, whose result is the number of the step that was wrong, or 0.
#[track_caller]
fn computes(steps: Vec<(Fragment, u64)>) {
    let mut body = Fragment::new();
    for (number, (step, value)) in (1_u32..).zip(steps) {
        body.splice(step);
        body.splice(expect(number, value));
    }
    let code = bpf! {
        r6 = *(u64 *)(r1 + 0);
        r7 = *(u64 *)(r1 + 8);
        ..body;
        r0 = 0;
        exit;
    };
    let loaded = load_only(code, Vec::new());
    // Not on a given CPU: there it would run in another task.
    assert_eq!(run(&loaded, &[A, 7], None), 0, "the number of the step that computes wrongly");
}

/// Arithmetic, moves, swaps, memory, atomic addition, jumps, calls, constants: instructions of
/// every kernel.
fn every_instruction_class_computes() -> Outcome {
    computes(vec![
        (bpf! { r1 = r6; r1 += r7; }, A + 7),
        (bpf! { r1 = r6; r1 -= 8; }, A - 8),
        (bpf! { r1 = r6; r1 *= r7; }, A.wrapping_mul(7)),
        (bpf! { r1 = r6; r1 /= r7; }, A / 7),
        (bpf! { r1 = r6; r1 %= 7; }, A % 7),
        (bpf! { r1 = r6; r1 |= r7; }, A | 7),
        (bpf! { r1 = r6; r1 &= 0xff; }, A & 0xff),
        (bpf! { r1 = r6; r1 ^= -1; }, !A),
        (bpf! { r1 = r6; r1 <<= 4; }, A << 4),
        (bpf! { r1 = r6; r1 >>= r7; }, A >> 7),
        (bpf! { r1 = r6; r1 s>>= 8; }, A.cast_signed().wrapping_shr(8).cast_unsigned()),
        (bpf! { r1 = r6; r1 = -r1; }, A.wrapping_neg()),
        (bpf! { w1 = w6; }, A & 0xffff_ffff),
        (bpf! { r1 = r6; w1 += w7; }, 0x1234_567f),
        (bpf! { r1 = r6; w1 = -w1; }, 0xedcb_a988),
        (bpf! { r1 = r6; w1 s>>= 4; }, 0x0123_4567),
        (bpf! { w1 = -5; }, 0xffff_fffb),
        (bpf! { r1 = -5; }, 5_u64.wrapping_neg()),
        (bpf! { r1 = 0x123456789abcdef0 ll; }, 0x1234_5678_9abc_def0),
        (bpf! { r1 = r6; r1 = be16 r1; }, u64::from(0x5678_u16.to_be())),
        (bpf! { r1 = r6; r1 = be32 r1; }, u64::from(0x1234_5678_u32.to_be())),
        (bpf! { r1 = r6; r1 = be64 r1; }, A.to_be()),
        (bpf! { r1 = r6; r1 = le32 r1; }, u64::from(0x1234_5678_u32.to_le())),
        (bpf! { *(u64 *)(r10 - 8) = r6; w1 = *(u8 *)(r10 - 8); }, u64::from(A.to_ne_bytes()[0])),
        (bpf! { *(u32 *)(r10 - 8) = -1; r1 = *(u32 *)(r10 - 8); }, 0xffff_ffff),
        (bpf! { *(u64 *)(r10 - 8) = 9; lock *(u64 *)(r10 - 8) += r7; r1 = *(u64 *)(r10 - 8); }, 16),
        (bpf! { r1 = 1; if r6 s< 0 goto yes; r1 = 0; yes: }, 1),
        (bpf! { r1 = 1; if w6 s> 0 goto yes; r1 = 0; yes: }, 1),
        (bpf! { r1 = 1; if r6 > r7 goto yes; r1 = 0; yes: }, 1),
        (bpf! { r1 = 1; if r7 & 2 goto yes; r1 = 0; yes: }, 1),
        (bpf! { r1 = 1; if w7 != 7 goto no; r1 = 0; no: }, 0),
        (bpf! { call bpf_get_current_pid_tgid; r0 >>= 32; r1 = r0; }, u64::from(std::process::id())),
        (bpf! { w1 = const ANSWER; }, 42),
    ]);
    Ok(())
}

fn local_functions_have_frames_of_their_own() -> Outcome {
    let code = bpf! {
        r1 = *(u64 *)(r1 + 0);
        *(u64 *)(r10 - 8) = 1;
        call double;
        r1 = *(u64 *)(r10 - 8);
        r0 += r1;
        exit;
    double:
        *(u64 *)(r10 - 8) = r1;
        r0 = *(u64 *)(r10 - 8);
        r0 += r1;
        exit;
    };
    assert_eq!(run(&load_only(code, Vec::new()), &[20], None), 41);
    Ok(())
}

/// Checks that the kernel has an instruction: that it loads this correct program.
#[track_caller]
fn understands(what: &str, claim: Availability, code: Fragment) -> Result<(), Skip> {
    let refused = try_load(&only(raw_tp(TEST_HOOK, TRACEPOINT, code), Vec::new())).err();
    // The last line is the verifier's reason.
    let reason = |error: LoadError| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
    requires(what, claim, refused.map(reason))
}

/// Atomic instructions that return a value: since 5.12, on arm64 since 5.18.
fn fetching_atomics_compute() -> Outcome {
    let since =
        if cfg!(target_arch = "aarch64") { Availability::Since(5, 18) } else { Availability::Since(5, 12) };
    let one =
        bpf! { *(u64 *)(r10 - 8) = 9; r1 = 1; r1 = atomic_fetch_add((u64 *)(r10 - 8), r1); r0 = 0; exit; };
    understands("atomics that fetch", since, one)?;
    let left = || bpf! { r1 = *(u64 *)(r10 - 8); };
    let put = |value: i32| bpf! { *(u64 *)(r10 - 8) = {value}; r1 = r7; };
    computes(vec![
        (bpf! { ..put(9); r1 = atomic_fetch_add((u64 *)(r10 - 8), r1); }, 9),
        (bpf! { ..put(9); r1 = atomic_fetch_add((u64 *)(r10 - 8), r1); ..left(); }, 16),
        (bpf! { ..put(9); r1 = atomic_fetch_or((u64 *)(r10 - 8), r1); ..left(); }, 9 | 7),
        (bpf! { ..put(9); r1 = atomic_fetch_and((u64 *)(r10 - 8), r1); ..left(); }, 9 & 7),
        (bpf! { ..put(9); w1 = atomic_fetch_xor((u32 *)(r10 - 8), w1); ..left(); }, 9 ^ 7),
        (bpf! { ..put(9); lock *(u64 *)(r10 - 8) |= r1; ..left(); }, 9 | 7),
        (bpf! { ..put(9); w1 = xchg32_32(r10 - 8, w1); }, 9),
        (bpf! { ..put(9); r1 = xchg_64(r10 - 8, r1); ..left(); }, 7),
        (bpf! { ..put(9); r0 = 9; r0 = cmpxchg_64(r10 - 8, r0, r7); ..left(); }, 7),
        (bpf! { ..put(9); r0 = 8; r0 = cmpxchg_64(r10 - 8, r0, r7); ..left(); }, 9),
    ]);
    Ok(())
}

/// Signed division, sign-extending loads and moves, `bswap`, `gotol`: version 4 of the instruction
/// set, since 6.6.
fn newer_instructions_compute() -> Outcome {
    const A: i64 = super::insns::A.cast_signed();
    understands(
        "version 4 of the instruction set",
        Availability::Since(6, 6),
        bpf! { r0 = 1; r0 s/= 1; exit; },
    )?;
    computes(vec![
        (bpf! { r1 = r6; r1 s/= r7; }, (A / 7).cast_unsigned()),
        (bpf! { r1 = r6; r1 s%= 1000; }, (A % 1000).cast_unsigned()),
        (bpf! { r1 = (s8)r6; }, 0x78),
        (bpf! { r1 = r6; r1 = -r1; r1 = (s32)r1; }, 0xffff_ffff_edcb_a988),
        (bpf! { *(u32 *)(r10 - 8) = -3; r1 = *(s32 *)(r10 - 8); }, 3_u64.wrapping_neg()),
        (bpf! { r1 = r6; r1 = bswap64 r1; }, A.cast_unsigned().swap_bytes()),
        (bpf! { r1 = 1; if r7 != 7 goto wrong; gotol over; wrong: r1 = 2; over: }, 1),
    ]);
    Ok(())
}
