//! On what it was measured: figures without that mean nothing.

/// Cores, processor, and this program's version and build.
pub fn described() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { " (debug build: figures are useless)" } else { "" };
    format!(
        "this client on {cores} cores, {}, {}; rota {}{build}",
        processor(),
        std::env::consts::OS,
        env!("CARGO_PKG_VERSION")
    )
}

/// The processor's name, where Linux tells it.
fn processor() -> String {
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = described.lines().find_map(|line| line.strip_prefix("model name"));
    name.map_or_else(
        || std::env::consts::ARCH.into(),
        |name| name.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}
