// SPDX-License-Identifier: GPL-2.0
//! Init's end of the channel of `jitfd-vm-protocol`, over the link that the runner
//! has named.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use jitfd_vm_protocol::{Kind, Link, PORT_NAME, SERIAL_PORT, Token, orders, send};

const CHUNK: usize = 64 * 1024;

/// The host's end of everything that init has to say.
pub struct Channel {
    link: Link,
    token: Token,
    port: Mutex<File>,
}

impl Channel {
    /// Follows the orders, and removes the token that they have: nobody else may
    /// send frames.
    pub fn open() -> io::Result<Channel> {
        let link = fs::read_to_string(Path::new("/").join(orders::LINK))?;
        let link = Link::named(&link).ok_or(io::ErrorKind::InvalidInput)?;
        let token = Path::new("/").join(orders::TOKEN);
        let bytes = fs::read(&token)?.try_into();
        fs::remove_file(token)?;
        let port = match link {
            Link::Virtio => open_virtio_port()?,
            Link::Serial => open_serial_port()?,
        };
        Ok(Channel {
            link,
            token: Token(bytes.map_err(|_| io::ErrorKind::InvalidInput)?),
            port: Mutex::new(port),
        })
    }

    /// How the guest is to end.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Sends a frame. Without the channel there is nobody to complain to.
    pub fn send(&self, kind: Kind, payload: &[u8]) {
        let mut port = self.port.lock().expect("no sender panics");
        send(&mut *port, self.token, kind, payload).expect("the channel to the host");
    }

    /// Sends all of `payload`, in as many frames as it takes.
    pub fn send_all(&self, kind: Kind, payload: &[u8]) {
        for chunk in payload.chunks(CHUNK) {
            self.send(kind, chunk);
        }
    }

    /// Sends all that `source` has, until its end.
    pub fn relay(&self, kind: Kind, mut source: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.send(kind, &buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that nothing follows, and returns when the host has it all.
    pub fn end(&self) {
        self.send(Kind::End, &[]);
        let mut port = self.port.lock().expect("no sender panics");
        match self.link {
            // The answer is only a signal that all was read: its value says nothing.
            Link::Virtio => drop(port.read(&mut [0; 1])),
            // SAFETY: the descriptor is open. What is left is lost if it fails, which
            // the host sees.
            Link::Serial => drop(unsafe { libc::tcdrain(port.as_raw_fd()) }),
        }
    }
}

/// Finds the virtio-serial port by its name. The host announces it only after
/// the driver has started, so it may take a moment.
fn open_virtio_port() -> io::Result<File> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(port) = find_virtio_port() {
            return OpenOptions::new().read(true).write(true).open(port);
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::NotFound.into());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn find_virtio_port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    for port in ports.flatten() {
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Some(Path::new("/dev").join(port.file_name()));
        }
    }
    None
}

/// Opens the serial port for bytes that nobody changes, as fast as it goes.
fn open_serial_port() -> io::Result<File> {
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(SERIAL_PORT)?;
    let descriptor = port.as_raw_fd();
    // SAFETY: the descriptor is open, and tcgetattr fills the structure before it
    // is used, or fails.
    let result = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        let mut result = libc::tcgetattr(descriptor, &mut settings);
        if result == 0 {
            libc::cfmakeraw(&mut settings);
            // There is no modem that could say that it is ready.
            let speed = libc::B115200 | libc::CLOCAL;
            settings.c_cflag = settings.c_cflag & !libc::CBAUD | speed;
            result = libc::tcsetattr(descriptor, libc::TCSANOW, &settings);
        }
        result
    };
    match result {
        0 => Ok(port),
        _ => Err(io::Error::last_os_error()),
    }
}
