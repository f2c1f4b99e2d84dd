//! `rota stop`: servers of this machine, stopped as Ctrl-C stops them.

use std::path::Path;
use std::time::{Duration, Instant};

use rota_node::config::{ConfigError, HomeLock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::address::Address;
use crate::args::Stop;
use crate::failure::Failure;
use crate::print::out;
use crate::trust::Trust;

/// How long a server may take: to hand its turn over, to end what it is executing, and to write it.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked whether it is gone.
const STEP: Duration = Duration::from_millis(20);

/// Stops one after the other, so that no two leaders go at once.
pub async fn run(asked: Stop) -> Result<(), Failure> {
    let trust = Trust::new(&asked.authority);
    for home in &asked.home {
        let name = home.display().to_string();
        let gone = || HomeLock::try_take(home).is_ok();
        stop(&name, holder(home)?, gone).await?;
    }
    for server in &asked.servers {
        let (name, process) = at(server, &trust).await?;
        stop(&name, process, || test_kill_process(process).is_err() || is_zombie(process)).await?;
    }
    Ok(())
}

/// The process that runs on a home.
fn holder(home: &Path) -> Result<Pid, Failure> {
    if !home.is_dir() {
        return Err(Failure::new(format!("{}: there is no such folder", home.display())));
    }
    match HomeLock::try_take(home) {
        Ok(_) => Err(Failure::new(format!("no server runs in {}", home.display()))),
        Err(ConfigError::InUse { pid, .. }) => process(pid.parse().unwrap_or(0)),
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

/// The name and the process of the server at an address.
async fn at(server: &Address, trust: &Trust) -> Result<(String, Pid), Failure> {
    let status = server.http(trust).await?.status().await?;
    let elsewhere = Failure::new(format!(
        "{server} says that it is process {}, which is no server of this machine: run `rota stop` \
         where it runs",
        status.pid
    ));
    let number = i32::try_from(status.pid).map_err(|_| elsewhere.clone())?;
    let process = process(number)?;
    // The address may lead elsewhere, and any process may have this number here.
    let name =
        std::fs::read_to_string(format!("/proc/{number}/comm")).map_err(|_| elsewhere.clone())?;
    let own = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    if name != own {
        return Err(elsewhere);
    }
    Ok((format!("{} at {server}", status.name), process))
}

fn process(number: i32) -> Result<Pid, Failure> {
    // 1 is the machine's first process, and what is below stands for groups of them.
    let process = (number > 1).then(|| Pid::from_raw(number)).flatten();
    process.ok_or_else(|| Failure::new(format!("{number} is not the number of a server's process")))
}

/// Whether it has ended, and only its parent has not looked yet.
fn is_zombie(process: Pid) -> bool {
    let path = format!("/proc/{}/stat", process.as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Asks, and waits until it is gone.
async fn stop(name: &str, process: Pid, gone: impl Fn() -> bool) -> Result<(), Failure> {
    let number = process.as_raw_nonzero();
    kill_process(process, Signal::TERM)
        .map_err(Failure::doing(format!("asking process {number} ({name}) to stop")))?;
    out(&format!("{name}: process {number} is asked to stop … "))?;
    let begun = Instant::now();
    while !gone() {
        if begun.elapsed() > PATIENCE {
            out("\n")?;
            return Err(Failure::new(format!(
                "{name} still runs after {PATIENCE:?}; kill -9 {number} does it no harm: nothing \
                 that was acknowledged is lost"
            )));
        }
        tokio::time::sleep(STEP).await;
    }
    out(&format!("stopped after {:.2} s\n", begun.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_asked_politely_and_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Pid::from_child(&child);
        stop("a sleeper", process, || is_zombie(process)).await.unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    }

    #[test]
    fn where_no_server_runs_there_is_nothing_to_stop() {
        let home = tempfile::tempdir().unwrap();
        let refused = holder(home.path()).unwrap_err().to_string();
        assert!(refused.starts_with("no server runs in"), "{refused}");
        assert!(holder(Path::new("/nowhere")).is_err());
        let lock = HomeLock::take(home.path()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder(home.path()).unwrap().as_raw_nonzero().get(), own);
        drop(lock);
    }

    #[test]
    fn no_number_reaches_further_than_one_process() {
        for number in [i32::MIN, -1, 0, 1] {
            assert!(process(number).is_err(), "{number}");
        }
    }
}
