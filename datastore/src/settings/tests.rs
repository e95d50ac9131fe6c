use super::*;

fn file(spec: &str) -> Result<DatastoreSettings, String> {
    let text = format!("apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n{spec}");
    Spec::of_file(&text)?.settings().map_err(|error| error.to_string())
}

fn environment(variables: &[(&str, &str)]) -> Result<DatastoreSettings, String> {
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
    let spec = Spec::of_environment(|name| find(name).map(|(_, value)| (*value).to_owned()));
    spec.settings().map_err(|error| error.to_string())
}

fn etcd(endpoints: &[&str]) -> EtcdSettings {
    EtcdSettings { endpoints: endpoints.iter().map(ToString::to_string).collect(), ..EtcdSettings::default() }
}

#[test]
fn the_file_and_the_environment_say_the_same() {
    let expected = EtcdSettings {
        login: Some(("root".into(), "secret".into())),
        ca: Some(Pem::File("/ca".into())),
        identity: Some((Pem::File("/cert".into()), Pem::File("/key".into()))),
        ..etcd(&["https://a:2379", "https://b:2379"])
    };
    let of_file = file(
        "  datastoreType: etcdv3\n  etcdEndpoints: https://a:2379,https://b:2379\n  etcdUsername: root\n  \
         etcdPassword: secret\n  etcdKeyFile: /key\n  etcdCertFile: /cert\n  etcdCACertFile: /ca\n",
    );
    let of_environment = environment(&[
        ("ETCD_ENDPOINTS", "https://a:2379,https://b:2379"),
        ("ETCD_USERNAME", "root"),
        ("ETCD_PASSWORD", "secret"),
        ("ETCD_KEY_FILE", "/key"),
        ("ETCD_CERT_FILE", "/cert"),
        ("ETCD_CA_CERT_FILE", "/ca"),
    ]);
    assert_eq!(of_file, Ok(DatastoreSettings::Etcd(expected.clone())));
    assert_eq!(of_environment, Ok(DatastoreSettings::Etcd(expected.clone())));
    assert!(!format!("{expected:?}").contains("secret"));
}

#[test]
fn a_variable_of_calicos_own_goes_first() {
    let both = environment(&[("ETCD_ENDPOINTS", "http://a:1"), ("CALICO_ETCD_ENDPOINTS", "http://b:1")]);
    assert_eq!(both, Ok(DatastoreSettings::Etcd(etcd(&["http://b:1"]))));
}

#[test]
fn without_a_word_it_is_the_directory() {
    assert_eq!(environment(&[]), Ok(DatastoreSettings::Directory(DEFAULT_DIRECTORY.into())));
    let directory = [("DATASTORE_TYPE", "directory"), ("DATASTORE_DIRECTORY", "/r")];
    assert_eq!(environment(&directory), Ok(DatastoreSettings::Directory("/r".into())));
}

#[test]
fn inline_certificates_come_together_and_alone() {
    let inline = file("  etcdEndpoints: a\n  etcdKey: k\n  etcdCert: c\n  etcdCACert: ca\n");
    let pem = |text: &str| Pem::Inline(text.into());
    let expected = EtcdSettings { ca: Some(pem("ca")), identity: Some((pem("c"), pem("k"))), ..etcd(&["a"]) };
    assert_eq!(inline, Ok(DatastoreSettings::Etcd(expected)));
    for (spec, reason) in [
        ("  etcdEndpoints: a\n  etcdKey: k\n  etcdCertFile: c\n", "Cannot mix inline"),
        ("  etcdEndpoints: a\n  etcdKey: k\n", "together or not at all"),
        ("  etcdEndpoints: a\n  etcdKeyFile: k\n", "must both be present"),
        ("  etcdEndpoints: a\n  etcdDiscoverySrv: b\n", "multiple discovery or bootstrap options"),
        ("  datastoreType: etcdv3\n", "no etcd endpoints specified"),
        ("  datastoreType: kubernetes\n  kubeconfig: /k\n", "Kubernetes, which is not supported"),
        ("  datastoreType: consul\n", "unknown datastore type: consul"),
        ("  etcdEndpoint: a\n", "unknown field \"spec.etcdEndpoint\""),
        ("  etcdEndpoints: [a]\n", "must be a text"),
    ] {
        let error = file(spec).unwrap_err();
        assert!(error.contains(reason), "{spec}: {error}");
    }
}

#[test]
fn another_kind_of_file_is_refused_in_calicoctls_words() {
    for (text, reason) in [
        ("kind: CalicoAPIConfig\n", "invalid config file: unknown APIVersion ''"),
        (
            "apiVersion: projectcalico.org/v3\nkind: Node\n",
            "invalid config file: expected kind 'CalicoAPIConfig', got 'Node'",
        ),
        ("apiVersion: [", "failed to parse config as YAML/JSON: "),
        ("apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nother: 1\n", "failed to parse config"),
    ] {
        let error = Spec::of_file(text).unwrap_err();
        assert!(error.starts_with(reason), "{error}");
    }
}

#[test]
fn only_the_usual_file_may_be_missing() {
    let error = load(Path::new("/nowhere/calicoctl.cfg")).unwrap_err();
    assert_eq!(error.to_string(), "Error reading config file: /nowhere/calicoctl.cfg");
}
