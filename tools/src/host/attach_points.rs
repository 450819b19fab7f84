//! The attach points with which the loader checks what this kernel supports.

use bpfasm::KernelVersion;
use loader::{AttachPoints, IteratorProbe};

/// Every kernel with TCP has the tracepoint since 4.16, and no kernel inlines the function
/// everywhere.
pub const ATTACH_POINTS: AttachPoints<'static> = AttachPoints {
    tracepoint: "inet_sock_set_state",
    function: "tcp_set_state",
    iterators: &[
        IteratorProbe {
            name: "iter/task_file",
            target: "task_file",
            since: KernelVersion { major: 5, minor: 8, patch: 0 },
        },
        IteratorProbe {
            name: "iter/tcp",
            target: "tcp",
            since: KernelVersion { major: 5, minor: 9, patch: 0 },
        },
    ],
};
