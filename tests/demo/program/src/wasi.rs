// SPDX-License-Identifier: MIT OR Apache-2.0

//! The part of WASI preview 1 that the renderer imports, over three descriptors
//! in memory: 0 is the picture's source, 1 collects the drawn picture, 2 what
//! the program says. There are no other files, time stands still and random
//! numbers are not random: two runs can differ only through the machine code.

use crate::errno::{Errno, number};
use crate::memory::{Memory, Pointer};
use std::fmt;
use std::ops::Range;
use wasmtime::{Caller, Error, Extern, Linker, Result};

const MODULE: &str = "wasi_snapshot_preview1";
const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// What one run of the program can see and change.
pub struct World {
    /// The command line, the program's name first.
    pub args: Vec<String>,
    /// What the program reads from descriptor 0.
    pub input: Vec<u8>,
    /// How much of it was read.
    pub consumed: usize,
    /// What it wrote to descriptor 1.
    pub output: Vec<u8>,
    /// What it wrote to descriptor 2.
    pub log: Vec<u8>,
}

/// The program called `proc_exit`: its way to end with a status.
#[derive(Debug)]
pub struct Exit(pub i32);

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the program ended with status {}", self.0)
    }
}

impl std::error::Error for Exit {}

/// Defines every function that the renderer imports.
pub fn define(linker: &mut Linker<World>) -> Result<()> {
    define_arguments(linker)?;
    define_streams(linker)?;
    define_surroundings(linker)?;
    define_missing_files(linker)
}

fn define_arguments(linker: &mut Linker<World>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "args_sizes_get",
        |mut caller: Caller<'_, World>, count, size| {
            call(&mut caller, |world, memory| {
                let bytes: usize = world.args.iter().map(|arg| arg.len() + 1).sum();
                memory.write_u32(count, length(world.args.len())?)?;
                memory.write_u32(size, length(bytes)?)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "args_get",
        |mut caller: Caller<'_, World>, table, buffer| {
            call(&mut caller, |world, memory| {
                write_arguments(&world.args, memory, table, buffer)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "environ_sizes_get",
        |mut caller: Caller<'_, World>, count, size| {
            call(&mut caller, |_, memory| {
                memory.write_u32(count, 0)?;
                memory.write_u32(size, 0)
            })
        },
    )?;
    linker.func_wrap(MODULE, "environ_get", |_: Pointer, _: Pointer| {
        number(Ok(()))
    })?;
    Ok(())
}

fn define_streams(linker: &mut Linker<World>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "fd_read",
        |mut caller: Caller<'_, World>, fd, buffers, count, done| {
            call(&mut caller, |world, memory| {
                let buffers = memory.buffers(buffers, count)?;
                let read = read(world, memory, fd, &buffers)?;
                memory.write_u32(done, length(read)?)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_write",
        |mut caller: Caller<'_, World>, fd, buffers, count, done| {
            call(&mut caller, |world, memory| {
                let buffers = memory.buffers(buffers, count)?;
                let written = write(world, memory, fd, &buffers)?;
                memory.write_u32(done, length(written)?)
            })
        },
    )?;
    Ok(())
}

fn define_surroundings(linker: &mut Linker<World>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "clock_time_get",
        |mut caller: Caller<'_, World>, _clock: i32, _precision: i64, time| {
            call(&mut caller, |_, memory| {
                memory.write(time, &0_u64.to_le_bytes())
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "random_get",
        |mut caller: Caller<'_, World>, at, len: i32| {
            call(&mut caller, |_, memory| {
                let len = usize::try_from(len).map_err(|_| Errno::FAULT)?;
                memory.bytes(at, len)?.fill(0x5a);
                Ok(())
            })
        },
    )?;
    linker.func_wrap(MODULE, "proc_exit", |status: i32| -> Result<()> {
        Err(Error::new(Exit(status)))
    })?;
    Ok(())
}

/// The calls that need a file system. The renderer imports them for fonts and
/// for pictures inside the picture; with the demo's arguments it has no use for
/// them.
fn define_missing_files(linker: &mut Linker<World>) -> Result<()> {
    let refused = number(Err(Errno::BADF));
    linker.func_wrap(MODULE, "fd_close", move |_: i32| refused)?;
    linker.func_wrap(MODULE, "fd_filestat_get", move |_: i32, _: i32| refused)?;
    linker.func_wrap(MODULE, "fd_prestat_get", move |_: i32, _: i32| refused)?;
    linker.func_wrap(
        MODULE,
        "fd_prestat_dir_name",
        move |_: i32, _: i32, _: i32| refused,
    )?;
    linker.func_wrap(
        MODULE,
        "fd_readdir",
        move |_: i32, _: i32, _: i32, _: i64, _: i32| refused,
    )?;
    linker.func_wrap(
        MODULE,
        "path_filestat_get",
        move |_: i32, _: i32, _: i32, _: i32, _: i32| refused,
    )?;
    linker.func_wrap(
        MODULE,
        "path_open",
        move |_: i32, _: i32, _: i32, _: i32, _: i32, _: i64, _: i64, _: i32, _: i32| refused,
    )?;
    Ok(())
}

/// Runs `body` with the program's memory; the result is what the program gets.
fn call(
    caller: &mut Caller<'_, World>,
    body: impl FnOnce(&mut World, &mut Memory<'_>) -> Result<(), Errno>,
) -> i32 {
    let Some(memory) = caller.get_export("memory").and_then(Extern::into_memory) else {
        return number(Err(Errno::FAULT));
    };
    let (bytes, world) = memory.data_and_store_mut(caller);
    number(body(world, &mut Memory(bytes)))
}

fn write_arguments(
    args: &[String],
    memory: &mut Memory<'_>,
    table: Pointer,
    buffer: Pointer,
) -> Result<(), Errno> {
    let (mut entry, mut text) = (table, buffer);
    for arg in args {
        memory.write_u32(entry, text.cast_unsigned())?;
        memory.write(text, arg.as_bytes())?;
        text = advanced(text, arg.len())?;
        memory.write(text, &[0])?;
        text = advanced(text, 1)?;
        entry = advanced(entry, 4)?;
    }
    Ok(())
}

fn read(
    world: &mut World,
    memory: &mut Memory<'_>,
    fd: i32,
    buffers: &[Range<usize>],
) -> Result<usize, Errno> {
    if fd != STDIN {
        return Err(Errno::BADF);
    }
    let before = world.consumed;
    for buffer in buffers {
        let rest = &world.input[world.consumed..];
        let len = rest.len().min(buffer.len());
        memory.0[buffer.start..buffer.start + len].copy_from_slice(&rest[..len]);
        world.consumed += len;
    }
    Ok(world.consumed - before)
}

fn write(
    world: &mut World,
    memory: &Memory<'_>,
    fd: i32,
    buffers: &[Range<usize>],
) -> Result<usize, Errno> {
    let sink = match fd {
        STDOUT => &mut world.output,
        STDERR => &mut world.log,
        _ => return Err(Errno::BADF),
    };
    let before = sink.len();
    for buffer in buffers {
        sink.extend_from_slice(&memory.0[buffer.clone()]);
    }
    Ok(sink.len() - before)
}

fn advanced(at: Pointer, by: usize) -> Result<Pointer, Errno> {
    Ok(at.wrapping_add_unsigned(length(by)?))
}

fn length(len: usize) -> Result<u32, Errno> {
    u32::try_from(len).map_err(|_| Errno::FAULT)
}
