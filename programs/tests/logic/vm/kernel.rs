//! Kernels whose struct layouts programs are executed with.

use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, Mutex};

use bpfasm::{Access, Arch, KernelVersion, Refused, Ring, Target};
use btf::{Btf, Bytes, Field, Index, Lookup, Want, Wanted};
use programs::filter::{Family, Filter};

use super::memory::{Memory, peek, poke};
use crate::specimens::ALL;

/// A kernel's types, cut to what TCP tools need; see `btf/tests/data`.
pub struct Kernel {
    /// The file's name.
    pub name: &'static str,
    /// Its version.
    pub version: KernelVersion,
    /// Its machine.
    pub arch: Arch,
    /// What its BTF says about the names that programs and these tests use.
    pub index: Index<'static>,
    /// The names asked for to make it.
    pub wanted: Wanted,
    /// Its BTF.
    pub bytes: &'static [u8],
    /// Fields asked for before: a debug build takes its time to find one, and these tests ask a
    /// hundred thousand times.
    known: Mutex<HashMap<&'static str, Place>>,
}

/// Where a field is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub offset: usize,
    pub size: usize,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! kernels {
    ($($major:literal . $minor:literal $arch:ident $name:literal,)*) => {
        /// All fixtures, oldest first.
        pub static KERNELS: LazyLock<Vec<Kernel>> = LazyLock::new(|| vec![$(
            Kernel::open(
                $name,
                KernelVersion { major: $major, minor: $minor, patch: 0 },
                Arch::$arch,
                include_bytes!(concat!("../../../../btf/tests/data/", $name, ".btf")),
            ),
        )*]);
    };
}
kernels! {
    5 . 10 X86_64 "5.10-x86_64",
    5 . 10 Aarch64 "5.10-aarch64",
    6 . 1 X86_64 "6.1-x86_64",
    6 . 12 X86_64 "6.12-x86_64",
    6 . 18 X86_64 "6.18-x86_64",
    7 . 3 X86_64 "7.3-x86_64",
    7 . 3 Aarch64 "7.3-aarch64",
}

/// Types whose objects tests make or look into, whatever programs use.
const ROOTS: [&str; 12] = [
    "sock",
    "sock_common",
    "sk_buff",
    "net",
    "socket",
    "file",
    "inode",
    "task_struct",
    "pt_regs",
    "user_pt_regs",
    "cgroup",
    "kernfs_node",
];

impl Kernel {
    fn open(name: &'static str, version: KernelVersion, arch: Arch, bytes: &'static [u8]) -> Self {
        // What programs use and what only these tests do.
        let mut wanted = Wanted::new().enumeration("sock_flags");
        for root in ROOTS {
            wanted.add(Want::Type, root);
        }
        let filter = Filter {
            pid: Some(1),
            family: Some(Family::V6),
            local_ports: vec![1],
            remote_ports: vec![1],
            subnets: vec!["::1/128".parse().expect("a subnet")],
            netns: Some(1),
            cgroup: Some(1),
        };
        for specimen in ALL {
            for (want, name) in specimen.wanted {
                wanted.add(*want, name);
            }
            for tracepoint in specimen.tracepoints {
                wanted.add(Want::Tracepoint, tracepoint.name);
            }
            // Everything asked for, with both accesses.
            for target in targets(version, arch) {
                for object in (specimen.every)(&filter, &target, 4096) {
                    loader::relocate::want(&mut wanted, &object);
                }
            }
        }
        // Lives as long as the tests do.
        let btf = Box::leak(Box::new(Btf::from_source(bytes).expect(name)));
        let index = btf.index(&wanted).expect(name);
        Self { name, version, arch, index, wanted, bytes, known: Mutex::default() }
    }

    /// The fixture of this name.
    pub fn named(name: &str) -> &'static Self {
        KERNELS.iter().find(|kernel| kernel.name == name).expect("a fixture's name")
    }

    /// The target a loader would describe on this kernel.
    pub fn target(&self, access: Access, ring: Ring) -> Target {
        target(self.version, self.arch, access, ring)
    }

    /// Every target a loader might describe on this kernel when nothing is forbidden there.
    pub fn targets(&self) -> impl Iterator<Item = Target> + use<> {
        targets(self.version, self.arch)
    }

    /// Where a field is, or how large a type; it must be there, and be no bit-field.
    pub fn place(&self, path: &'static str) -> Place {
        *self.known.lock().expect("no panic in here").entry(path).or_insert_with(|| {
            match self.index.field(path) {
                Ok(Lookup::Found(Field { offset, size, bits: None, .. })) => {
                    Place { offset: offset.0 as usize, size: size.0 as usize }
                }
                other => panic!("{path} on {self:?}: {other:?}"),
            }
        })
    }

    /// The value of an enumerator, which must be there.
    pub fn enum_value(&self, name: &str, variant: &str) -> u32 {
        match self.index.enum_value(name, variant) {
            Ok(Lookup::Found(value)) => u32::try_from(value).expect("a small number"),
            other => panic!("{name}.{variant} on {self:?}: {other:?}"),
        }
    }

    /// A kernel object of noise, as long as the type `root` is.
    pub fn object(&'static self, root: &'static str, seed: u64) -> KernelObject {
        KernelObject { kernel: self, memory: Memory::noise(self.place(root).size, seed) }
    }
}

fn target(version: KernelVersion, arch: Arch, access: Access, ring: Ring) -> Target {
    Target { version, arch, access, ring, trampolines: true, kprobes: true, refused: Refused::default() }
}

/// Every target that a kernel may be, with everything that it can attach.
fn targets(version: KernelVersion, arch: Arch) -> impl Iterator<Item = Target> {
    [Access::Typed, Access::Probed].into_iter().flat_map(move |access| {
        [Ring::RingBuf, Ring::PerfEventArray].map(|ring| target(version, arch, access, ring))
    })
}

/// Some struct in a kernel's memory, laid out as that kernel does.
pub struct KernelObject {
    kernel: &'static Kernel,
    pub memory: Memory,
}

impl KernelObject {
    /// Its address.
    pub fn address(&self) -> u64 {
        self.memory.address()
    }

    /// Sets a field that is a number or a pointer. The path may start from any struct that lies at
    /// the object's start.
    pub fn set(&self, path: &'static str, value: u64) {
        let len = self.kernel.place(path).size;
        assert!(len == 8 || value >> (len * 8) == 0, "{path} has {len} bytes");
        self.set_bytes(path, &value.to_le_bytes()[..len]);
    }

    /// Sets a field's first bytes.
    pub fn set_bytes(&self, path: &'static str, bytes: &[u8]) {
        let place = self.kernel.place(path);
        assert!(bytes.len() <= place.size, "{path} has {} bytes", place.size);
        let at = self.address() + place.offset as u64;
        assert!(at + bytes.len() as u64 <= self.memory.range().end, "{path} lies outside of the object");
        poke(at, bytes).expect("own memory");
    }

    /// Sets a bit-field of at most a byte; the bits beside it stay as they are.
    pub fn set_bits(&self, path: &'static str, value: u8) {
        let Ok(Lookup::Found(Field { offset, size: Bytes(1), bits: Some(bits), .. })) =
            self.kernel.index.field(path)
        else {
            panic!("{path} on {:?} is not a small bit-field", self.kernel);
        };
        let mask = u8::try_from(bits.mask()).expect("at most a byte");
        assert!(value <= mask, "{path} has {} bits", bits.width.0);
        let at = self.address() + u64::from(offset.0);
        let beside = peek(at, 1).expect("own memory")[0] & !(mask << bits.shift.0);
        poke(at, &[beside | value << bits.shift.0]).expect("own memory");
    }

    /// The value of a field now.
    pub fn get(&self, path: &'static str) -> u64 {
        let place = self.kernel.place(path);
        let mut value = [0; 8];
        let bytes = peek(self.address() + place.offset as u64, place.size).expect("own memory");
        value[..bytes.len()].copy_from_slice(&bytes);
        u64::from_le_bytes(value)
    }
}
