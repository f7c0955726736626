//! Children that cannot outlive the test process, however it ends.

use std::io;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};
use std::thread;

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns `command` so that the kernel kills it when this process ends, by a panic, an abort
/// or `kill -9` alike. (Linux only; elsewhere the child is an ordinary one.)
///
/// The kernel ties that promise to the *thread* which spawned the child, and test threads end
/// with their test. So one thread that lives as long as the process does all the spawning.
///
/// # Errors
/// Those of [`Command::spawn`].
pub fn spawn_bound(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("child-spawner".into())
            .spawn(move || {
                for (command, answer) in inbox {
                    // An asker that is gone needs no answer; the child dies with us anyway.
                    let _ = answer.send(bind(command).spawn());
                }
            })
            .expect("a thread for spawning children");
        orders
    });
    let (answer, outcome) = mpsc::channel();
    spawner
        .send((command, answer))
        .expect("the spawning thread lives as long as the process");
    outcome
        .recv()
        .expect("the spawning thread answers every order")
}

#[cfg(target_os = "linux")]
fn bind(mut command: Command) -> Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is async-signal-safe and touches no memory of this process.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command
}

#[cfg(not(target_os = "linux"))]
fn bind(command: Command) -> Command {
    command
}

/// Sends `signal` (a `libc::SIG…`) to a child that has not been waited for yet.
pub fn signal(child: &Child, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id fits");
    // SAFETY: the child is not reaped, so the id still names it.
    unsafe {
        libc::kill(pid, signal);
    }
}
