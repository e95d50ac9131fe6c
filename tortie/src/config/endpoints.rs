//! Where the router answers over HTTP: `metrics` and `looking_glass`.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::Reason;
use super::field::{Fault, optional, required};
use super::file::{EndpointFields, Section, TlsFields};

const EXAMPLE: &str = "{ listen: \"127.0.0.1:9191\" }";
const TLS_EXAMPLE: &str =
    "tls: { cert_file: /etc/tortie/tls/router.crt, key_file: /etc/tortie/tls/router.key }";

/// Where and how one of them answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The section of `tortie.yaml`, for messages.
    pub(crate) section: &'static str,
    /// Never every address of the host, unless `interface` is there or the operator says `everywhere`.
    pub(crate) listen: SocketAddr,
    /// The only interface that it is reached by.
    pub(crate) interface: Option<String>,
    /// Absent where it speaks plainly.
    pub(crate) tls: Option<TlsFiles>,
}

/// PEM files, which are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Our certificate, and those between it and its authority.
    pub(crate) cert: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// Authorities, one of which must have signed a client's certificate; absent where anybody may ask.
    pub(crate) client_ca: Option<PathBuf>,
}

pub(super) fn endpoint(
    section: &'static str,
    fields: &Option<Section<EndpointFields>>,
) -> Result<Option<Endpoint>, Fault> {
    let Some(Section(fields)) = fields else { return Ok(None) };
    let field = required(section, "listen", &fields.listen, EXAMPLE)?;
    let given = field.text()?;
    let listen: SocketAddr =
        given.parse().map_err(|_| field.fault(Reason::Listen { given: given.to_owned() }))?;
    let interface = optional(section, "interface", &fields.interface)
        .map(|field| field.interface_name().map(str::to_owned))
        .transpose()?;
    let everywhere =
        optional(section, "everywhere", &fields.everywhere).map_or(Ok(false), |field| field.truth())?;
    if listen.ip().is_unspecified() && interface.is_none() && !everywhere {
        return Err(field.fault(Reason::Everywhere { given: given.to_owned() }));
    }
    let tls = fields.tls.as_ref().map(|Section(fields)| tls(section, fields)).transpose()?;
    Ok(Some(Endpoint { section, listen, interface, tls }))
}

fn tls(section: &str, fields: &TlsFields) -> Result<TlsFiles, Fault> {
    let section = format!("{section}.tls");
    let file = |name, entry| required(&section, name, entry, TLS_EXAMPLE)?.text().map(PathBuf::from);
    let client_ca = optional(&section, "client_ca_file", &fields.client_ca_file);
    Ok(TlsFiles {
        cert: file("cert_file", &fields.cert_file)?,
        key: file("key_file", &fields.key_file)?,
        client_ca: client_ca.map(|field| field.text().map(PathBuf::from)).transpose()?,
    })
}

impl Endpoint {
    /// What an operator should know of it before the wrong people find it.
    pub(crate) fn warning(&self) -> Option<String> {
        let Endpoint { section, listen, .. } = self;
        let known = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        (!listen.ip().is_loopback() && !known).then(|| {
            format!(
                "{section}: whoever reaches {listen} may ask; give {section}.tls with a client_ca_file, or listen on loopback"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, parse};

    #[test]
    fn every_field_of_an_endpoint_is_read() {
        let text = "looking_glass:\n  listen: \"0.0.0.0:9192\"\n  interface: mgmt0\n  \
                    tls: { cert_file: /c, key_file: /k, client_ca_file: /a }\n";
        let glass = parse(&format!("{GOOD}{text}")).unwrap().looking_glass.unwrap();
        assert_eq!(
            glass,
            super::Endpoint {
                section: "looking_glass",
                listen: "0.0.0.0:9192".parse().unwrap(),
                interface: Some("mgmt0".to_owned()),
                tls: Some(super::TlsFiles {
                    cert: "/c".into(),
                    key: "/k".into(),
                    client_ca: Some("/a".into())
                }),
            }
        );
        assert_eq!(glass.warning(), None);
    }

    #[test]
    fn every_address_of_the_host_is_refused_unless_asked_for() {
        for listen in ["0.0.0.0:9191", "[::]:9191"] {
            let message = parse(&format!("{GOOD}metrics: {{ listen: \"{listen}\" }}\n")).unwrap_err();
            for part in
                ["t.yaml:4:20: metrics.listen", listen, "every address", "interface", "everywhere: true"]
            {
                assert!(message.contains(part), "{message}");
            }
            let asked = parse(&format!("{GOOD}metrics: {{ listen: \"{listen}\", everywhere: true }}\n"));
            assert!(asked.unwrap().metrics.unwrap().warning().is_some());
        }
    }

    #[test]
    fn half_an_identity_is_refused() {
        let text = format!("{GOOD}metrics: {{ listen: \"127.0.0.1:9191\", tls: {{ cert_file: /c }} }}\n");
        let message = parse(&text).unwrap_err();
        assert!(message.contains("metrics.tls.key_file") && message.contains("missing"), "{message}");
    }

    #[test]
    fn an_endpoint_on_loopback_needs_no_warning() {
        let config = parse(&format!("{GOOD}metrics: {{ listen: \"127.0.0.1:9191\" }}\n")).unwrap();
        assert_eq!(config.metrics.unwrap().warning(), None);
        let config = parse(&format!("{GOOD}looking_glass: {{ listen: \"192.0.2.1:9192\" }}\n")).unwrap();
        assert!(config.looking_glass.unwrap().warning().unwrap().contains("client_ca_file"));
    }
}
