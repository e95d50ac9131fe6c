//! The picture of the rooms (ARCHITECTURE.md) held to the code: who may depend on whom.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Each room and the rooms it may use. A new arrow is rare; it changes the picture in the same commit.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("packet", &["model"]),
    ("lpm", &[]),
    ("policy", &["model", "lpm"]),
    ("bgp", &["model"]),
    ("tables", &["model", "packet", "lpm", "policy"]),
    ("afxdp", &[]),
    ("fastpath", &["afxdp", "packet", "tables", "policy", "model"]),
    ("datastore", &["policy", "model"]),
    ("slowpath", &["bgp", "datastore", "tables", "policy", "packet", "model"]),
    (
        "tortie",
        &["fastpath", "slowpath", "afxdp", "bgp", "datastore", "tables", "policy", "packet", "lpm", "model"],
    ),
    ("lab", &["model", "packet", "lpm", "bgp", "tables", "fastpath", "datastore", "slowpath"]),
    ("perf", &["model", "packet", "lpm", "policy", "bgp", "tables", "afxdp", "datastore", "fastpath", "lab"]),
    ("xtask", &["lab"]),
];

/// Every room's dependencies on other rooms, as cargo sees them; those of tests and build scripts apart.
fn arrows() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs this test");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rooms: Vec<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let arrows_of = |package: &Value| {
        let all = package["dependencies"].as_array().cloned().unwrap_or_default();
        let normal = all.iter().filter(|dependency| dependency["kind"].is_null());
        normal.map(|dependency| text(&dependency["name"])).filter(|name| rooms.contains(name)).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), arrows_of(package))).collect()
}

#[test]
fn every_arrow_between_rooms_is_in_the_picture() {
    for (room, uses) in arrows() {
        let allowed = MAY_USE.iter().find(|(name, _)| *name == room);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{room} is not in the picture of the rooms"));
        for used in uses {
            assert!(
                allowed.contains(&used.as_str()),
                "{room} depends on {used}, which the picture does not show"
            );
        }
    }
}

#[test]
fn the_two_halves_of_the_router_never_name_each_other() {
    let arrows = arrows();
    assert!(!arrows["fastpath"].contains(&"slowpath".to_owned()));
    assert!(!arrows["slowpath"].contains(&"fastpath".to_owned()));
    assert!(
        arrows["lpm"].is_empty() && arrows["afxdp"].is_empty(),
        "two rooms that depend on nothing of ours"
    );
}
