use super::*;

/// A drive with these files, and an empty root.
fn drive(files: &[(&str, &str)]) -> (tempfile::TempDir, tempfile::TempDir) {
    let (drive, root) = (tempfile::tempdir().expect("a drive"), tempfile::tempdir().expect("a root"));
    for (name, text) in files {
        fs::write(drive.path().join(name), text).expect("it is written");
    }
    (drive, root)
}

fn take(drive: &Path, root: &Path) -> Result<String> {
    super::take(&FirstBootArgs { drive: drive.to_owned(), root: root.to_owned() })
}

fn refusal(files: &[(&str, &str)]) -> String {
    let (drive, root) = drive(files);
    let error = take(drive.path(), root.path()).expect_err("it can't be meant");
    assert_eq!(fs::read_dir(root.path()).expect("the root").count(), 0, "something was written");
    format!("{error:#}")
}

const META: (&str, &str) = ("meta-data", "instance-id: one\nlocal-hostname: gateway1\n");

#[test]
fn the_example_of_the_image_is_taken_whole_and_its_configuration_is_good() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../appliance-image/example");
    let root = tempfile::tempdir().expect("a root");
    let plan = Plan::read(&example).expect("the example is read");
    assert_eq!(plan.ignored, Vec::<String>::new());
    take(&example, root.path()).expect("the example is taken");
    let read = |path: &str| fs::read_to_string(root.path().join(path)).expect(path);
    assert_eq!(read("etc/hostname"), "gateway1\n");
    assert_eq!(read("etc/resolv.conf"), "nameserver 192.0.2.53\n");
    assert!(read("etc/ssh/keys/authorized_keys").starts_with("ssh-ed25519 "));
    assert_eq!(
        read("etc/systemd/network/10-drive-mgmt0.link"),
        "[Match]\nMACAddress=52:54:00:00:00:01\nType=ether\n\n[Link]\nName=mgmt0\n"
    );
    assert_eq!(
        read("etc/systemd/network/10-drive-mgmt0.network"),
        "[Match]\nName=mgmt0\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nAddress=192.0.2.10/24\n\n\
         [Route]\nGateway=192.0.2.1\nMetric=1024\n"
    );
    let config =
        crate::config::Config::read(&root.path().join("etc/tortie/tortie.yaml")).expect("it is good");
    assert_eq!(config.node, "gateway1");
}

#[test]
fn an_instance_is_taken_once_and_another_in_its_place() {
    let (drive, root) =
        drive(&[META, ("network-config", "version: 2\nethernets: { eth0: { dhcp4: true } }\n")]);
    let unit = |name: &str| root.path().join(format!("etc/systemd/network/10-drive-{name}.network"));
    take(drive.path(), root.path()).expect("it is taken");
    assert!(fs::read_to_string(unit("eth0")).expect("a unit").contains("DHCP=ipv4\n"));
    fs::write(root.path().join("etc/hostname"), "an operator's\n").expect("it is written");
    take(drive.path(), root.path()).expect("it is known");
    let hostname = || fs::read_to_string(root.path().join("etc/hostname")).expect("a name");
    assert_eq!(hostname(), "an operator's\n");
    fs::write(drive.path().join("meta-data"), "instance-id: two\nlocal-hostname: b\n").expect("written");
    fs::write(drive.path().join("network-config"), "network: { version: 2, ethernets: { eth1: {} } }")
        .expect("written");
    take(drive.path(), root.path()).expect("it is taken");
    assert_eq!(hostname(), "b\n");
    assert!(unit("eth1").exists() && !unit("eth0").exists());
}

#[test]
fn nothing_is_written_outside_the_routers_own_folder() {
    for path in ["/etc/passwd", "/etc/tortie/../passwd", "etc/tortie/x", "/etc/tortie", "/etc/tortie2/x"] {
        let user = format!("#cloud-config\nwrite_files: [{{ path: {path}, content: x }}]\n");
        let error = refusal(&[META, ("user-data", &user)]);
        assert!(error.contains("is not below /etc/tortie"), "{path}: {error}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_and_told_with_its_place() {
    let network = |text: &str| refusal(&[META, ("network-config", text)]);
    let user = |text: &str| refusal(&[META, ("user-data", text)]);
    for (error, expected) in [
        (refusal(&[("user-data", "#cloud-config\n")]), "there is no meta-data"),
        (refusal(&[("meta-data", "local-hostname: a\n")]), "no instance-id"),
        (refusal(&[("meta-data", "{instance-id: i, local-hostname: \"a b\"}\n")]), "no host name"),
        (user("#!/bin/sh\n"), "#cloud-config"),
        (user("#cloud-config\nssh_authorized_keys: [\"two\\nlines here\"]\n"), "no public key"),
        (user("#cloud-config\nwrite_files: [{path: /etc/tortie/x, permissions: \"9\"}]\n"), "permissions"),
        (user("#cloud-config\nwrite_files: [{path: /etc/tortie/x, encoding: b64}]\n"), "encoding"),
        (network("version: 1\nconfig: []\n"), "version 1 is not read here"),
        (network("version: 2\nethernets: { a: { set-name: b } }\n"), "set-name needs"),
        (network("version: 2\nethernets: { a: { addresses: [10.0.0.1] } }\n"), "no address with its prefix"),
        (network("version: 2\nethernets: { \"a b\": {} }\n"), "no name of an interface"),
        (network("version: 2\nethernets: { a: { match: { macaddress: x } } }\n"), "no MAC address"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_asked_for_and_not_done_is_named() {
    let (drive, _root) = drive(&[
        META,
        ("user-data", "#cloud-config\npackages: [vim]\nssh_authorized_keys: []\n"),
        ("network-config", "version: 2\nbonds: {}\nethernets: { eth0: { wakeonlan: true } }\n"),
    ]);
    let plan = Plan::read(drive.path()).expect("it is read");
    assert_eq!(
        plan.ignored,
        ["packages of user-data", "bonds of network-config", "wakeonlan of ethernet eth0"]
    );
}

#[test]
fn a_secret_keeps_its_permissions() {
    let user =
        "#cloud-config\nwrite_files:\n- {path: /etc/tortie/secrets/a, permissions: '0600', content: s}\n";
    let (drive, root) = drive(&[META, ("user-data", user)]);
    take(drive.path(), root.path()).expect("it is taken");
    let secret = fs::metadata(root.path().join("etc/tortie/secrets/a")).expect("a secret");
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
}
