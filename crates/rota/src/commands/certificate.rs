//! `rota certificate`: a new certificate for a server, signed by the cluster's authority.

use rota_node::tls::{CERTIFICATE_FILE, Facts, read_certificates};

use crate::args::Certificate;
use crate::certificates::Authority;
use crate::failure::Failure;
use crate::print::out;

/// Makes it and writes it to the home.
pub fn run(asked: &Certificate) -> Result<(), Failure> {
    let names = if asked.names.is_empty() { names_of_old(asked)? } else { asked.names.clone() };
    let authority = Authority::load(&asked.ca)?;
    std::fs::create_dir_all(&asked.home).map_err(Failure::doing(asked.home.display()))?;
    let ends = authority.certify(&names, &asked.home)?;
    out(&format!(
        "{}: a certificate for {}, valid until {ends}\n",
        asked.home.join(CERTIFICATE_FILE).display(),
        names.join(", ")
    ))
}

fn names_of_old(asked: &Certificate) -> Result<Vec<String>, Failure> {
    let path = asked.home.join(CERTIFICATE_FILE);
    let none = |why: String| {
        Failure::new(format!("{why}; say by which names clients know the server: … HOST"))
    };
    let old = read_certificates(&path).map_err(|error| none(error.to_string()))?;
    let facts = old.first().map(|leaf| Facts::of(leaf)).unwrap_or(Err("it is empty".into()));
    let facts = facts.map_err(|error| none(format!("{}: {error}", path.display())))?;
    if facts.names.is_empty() {
        return Err(none(format!("{}: there are no names in it", path.display())));
    }
    Ok(facts.names)
}
