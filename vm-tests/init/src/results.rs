//! The serial line to the runner.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Instant;

use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// Writes lines `vm SECONDS WORD TEXT`.
pub struct Results {
    device: File,
    begin: Instant,
}

impl Results {
    /// Opens the device.
    pub fn open(path: &str) -> Result<Self, String> {
        let device = OpenOptions::new().write(true).open(path).map_err(|e| format!("{path}: {e}"))?;
        // In raw mode the terminal neither echoes nor expands tabs.
        if let Ok(mut mode) = tcgetattr(&device) {
            cfmakeraw(&mut mode);
            tcsetattr(&device, SetArg::TCSANOW, &mode).map_err(|e| format!("{path}: {e}"))?;
        }
        Ok(Self { device, begin: Instant::now() })
    }

    /// Writes one line in one write, so that on a shared console no kernel message splits it.
    pub fn report(&mut self, word: &str, text: &str) -> Result<(), String> {
        let seconds = self.begin.elapsed().as_secs_f64();
        let line = format!("vm {seconds:.3} {word} {text}\r\n");
        self.device.write_all(line.as_bytes()).map_err(|e| format!("write a result: {e}"))
    }
}
