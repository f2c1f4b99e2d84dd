//! The part of `deny.toml` that can be checked from `cargo metadata` alone: licences, bans,
//! sources.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::licence::satisfied;

/// One crate that is built.
#[derive(Debug)]
pub struct Package {
    name: String,
    version: String,
    licence: Option<String>,
    /// `None` for our own.
    source: Option<String>,
}

/// What `deny.toml` says.
#[derive(Debug)]
pub struct Rules {
    licences: Vec<String>,
    banned: Vec<Ban>,
    registries: Vec<String>,
}

#[derive(Debug)]
struct Ban {
    name: String,
    /// Only versions below this one; all if `None`.
    below: Option<Vec<u64>>,
    reason: String,
}

impl Rules {
    /// Reads it. What is not understood is an error: a rule that is skipped in silence protects
    /// nobody.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error| format!("deny.toml: {error}"))?;
        let list = |section: &str, key: &str| -> Result<&Vec<Value>, String> {
            let value = table.get(section).and_then(|section| section.get(key));
            value
                .and_then(Value::as_array)
                .ok_or_else(|| format!("deny.toml: no list {section}.{key}"))
        };
        let strings = |values: &[Value]| -> Vec<String> {
            values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Ok(Self {
            licences: strings(list("licenses", "allow")?),
            banned: list("bans", "deny")?.iter().map(Ban::parse).collect::<Result<_, _>>()?,
            registries: strings(list("sources", "allow-registry")?),
        })
    }

    /// What is broken, a line each.
    pub fn check(&self, packages: &[Package]) -> Vec<String> {
        packages.iter().flat_map(|package| self.check_one(package)).collect()
    }

    fn check_one(&self, package: &Package) -> Vec<String> {
        let Package { name, version, licence, source } = package;
        let Some(source) = source else {
            return vec![];
        };
        let mut broken = Vec::new();
        let licence = licence.as_deref().unwrap_or("none that it names");
        if !satisfied(licence, &self.licences) {
            broken.push(format!("{name} {version}: its licence is {licence}"));
        }
        for ban in self.banned.iter().filter(|ban| ban.covers(package)) {
            broken.push(format!("{name} {version} is banned: {}", ban.reason));
        }
        let registry = source.strip_prefix("registry+").unwrap_or_default();
        if !self.registries.iter().any(|allowed| allowed == registry) {
            broken.push(format!("{name} {version} comes from {source}"));
        }
        broken
    }
}

impl Ban {
    fn parse(value: &Value) -> Result<Self, String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let spec =
            text("crate").ok_or_else(|| format!("deny.toml: a ban without a crate: {value}"))?;
        let (name, below) = match spec.split_once(':') {
            None => (spec, None),
            Some((name, range)) => {
                let limit = range.strip_prefix('<').and_then(numbers);
                (
                    name,
                    Some(
                        limit
                            .ok_or_else(|| format!("deny.toml: cannot read the range in {spec}"))?,
                    ),
                )
            }
        };
        let reason = text("reason").unwrap_or("no reason given").to_owned();
        Ok(Self { name: name.to_owned(), below, reason })
    }

    fn covers(&self, package: &Package) -> bool {
        let version = numbers(&package.version).unwrap_or_default();
        self.name == package.name && self.below.as_ref().is_none_or(|below| version < *below)
    }
}

/// `0.13.10-rc.1` is 0, 13, 10: close enough for a ban.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let release = version.split(['-', '+']).next()?;
    release.split('.').map(|part| part.parse().ok()).collect()
}

/// The packages that something of ours is built from, on any platform: what `metadata` says of
/// those that `tree` names (`name v1.2.3 …`, a line each). Metadata alone lists optional ones too.
pub fn packages(metadata: &str, tree: &str) -> Result<Vec<Package>, String> {
    let metadata: Json = serde_json::from_str(metadata).map_err(|error| error.to_string())?;
    let built: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let text = |value: &Json| value.as_str().map(str::to_owned);
    let all = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let packages: Vec<Package> = all
        .iter()
        .map(|package| Package {
            name: text(&package["name"]).unwrap_or_default(),
            version: text(&package["version"]).unwrap_or_default(),
            licence: text(&package["license"]),
            source: text(&package["source"]),
        })
        .filter(|package| built.contains(&(package.name.as_str(), package.version.as_str())))
        .collect();
    if packages.len() < built.len() {
        return Err("cargo tree names packages that cargo metadata does not know".into());
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "registry+https://example.org/index";

    fn package(name: &str, version: &str, licence: &str, source: &str) -> Package {
        let [name, version, licence, source] = [name, version, licence, source].map(str::to_owned);
        Package { name, version, licence: Some(licence), source: Some(source) }
    }

    #[track_caller]
    fn check(package: Package, expected: usize) {
        let rules = Rules::parse(
            r#"
            licenses.allow = ["MIT"]
            bans.deny = [{ crate = "yamux:<0.13.10" }, { crate = "openssl", reason = "no" }]
            sources.allow-registry = ["https://example.org/index"]
            "#,
        );
        let broken = rules.unwrap().check(&[package]);
        assert_eq!(broken.len(), expected, "{broken:?}");
    }

    #[test]
    fn licences_bans_and_sources_are_each_found() {
        check(package("a", "1.0.0", "MIT", REGISTRY), 0);
        check(package("a", "1.0.0", "GPL-3.0-only", REGISTRY), 1);
        check(package("openssl", "1.0.0", "MIT", REGISTRY), 1);
        check(package("a", "1.0.0", "MIT", "git+https://example.org/a"), 1);
        check(package("a", "1.0.0", "MIT", "registry+https://other.example.org/index"), 1);
    }

    #[test]
    fn a_ban_of_old_versions_spares_new_ones() {
        check(package("yamux", "0.13.9", "MIT", REGISTRY), 1);
        check(package("yamux", "0.12.20", "MIT", REGISTRY), 1);
        check(package("yamux", "0.13.10", "MIT", REGISTRY), 0);
        check(package("yamux", "0.14.0", "MIT", REGISTRY), 0);
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_an_error() {
        let text = |range: &str| {
            format!(
                "licenses.allow = []\nsources.allow-registry = []\n\
                 bans.deny = [{{ crate = \"a{range}\" }}]"
            )
        };
        assert!(Rules::parse(&text(":<1.0")).is_ok());
        assert!(Rules::parse(&text(":>=1.0")).is_err());
        assert!(Rules::parse("").is_err());
    }

    #[test]
    fn packages_that_nothing_is_built_from_do_not_count() {
        let metadata = r#"{"packages": [
            {"name": "ours", "version": "1.0.0"},
            {"name": "used", "version": "1.0.0"},
            {"name": "used", "version": "2.0.0"},
            {"name": "optional", "version": "1.0.0"}
        ]}"#;
        let tree = "ours v1.0.0 (/somewhere)\nused v2.0.0 (proc-macro)\nused v2.0.0 (*)\n\n";
        let built = packages(metadata, tree).unwrap();
        let built: Vec<(&str, &str)> =
            built.iter().map(|package| (&*package.name, &*package.version)).collect();
        assert_eq!(built, [("ours", "1.0.0"), ("used", "2.0.0")]);
        assert!(packages(metadata, "unknown v1.0.0").is_err());
    }
}
