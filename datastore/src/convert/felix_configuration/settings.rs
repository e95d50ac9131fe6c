//! Where a setting stands, and what becomes of one that is no good.
//!
//! Felix knows its settings as parameters with values of text. The spec's fields become such, and an annotation
//! `config.projectcalico.org/PARAMETER` stands for the field and hides it, past the rules that the field is held to
//! (`libcalico-go/lib/backend/syncersv1/updateprocessors/configurationprocessor.go`).

use model::Setting;

use crate::document::{Content, Value};
use crate::fields::{Fault, Object};
use crate::invalid::{Position, Reason};

const ANNOTATION: &str = "config.projectcalico.org/";

/// A parameter of Felix's that counts here (`felix/config/config_params.go`).
struct Parameter {
    name: &'static str,
    /// The spec's field.
    field: &'static str,
    form: Form,
    /// What a value that is no good does.
    bad: Bad,
}

/// How an annotation writes a value.
#[derive(Clone, Copy)]
enum Form {
    Flag,
    Number,
    Text,
    /// With a fraction, perhaps.
    Seconds,
    /// Items after commas.
    List,
    /// `[PROTOCOL:[NET:]]PORT`, and more of them after commas.
    Ports,
    /// `KEY=VALUE`, and more of them after commas.
    Pairs,
}

/// What a value of the spec that is no good does to Felix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bad {
    /// The default takes its place.
    Standard,
    /// Felix ends (`die-on-fail`), or Calico's own client can't read the resource.
    Refused,
}

const fn standard(name: &'static str, field: &'static str, form: Form) -> Parameter {
    Parameter { name, field, form, bad: Bad::Standard }
}

const fn refused(name: &'static str, field: &'static str, form: Form) -> Parameter {
    Parameter { name, field, form, bad: Bad::Refused }
}

static PARAMETERS: &[Parameter] = &[
    refused("MetadataAddr", "metadataAddr", Form::Text),
    refused("MetadataPort", "metadataPort", Form::Number),
    standard("IpInIpEnabled", "ipipEnabled", Form::Flag),
    standard("IpInIpMtu", "ipipMTU", Form::Number),
    standard("VXLANEnabled", "vxlanEnabled", Form::Flag),
    standard("VXLANMTU", "vxlanMTU", Form::Number),
    standard("VXLANMTUV6", "vxlanMTUV6", Form::Number),
    standard("VXLANPort", "vxlanPort", Form::Number),
    standard("VXLANVNI", "vxlanVNI", Form::Number),
    standard("ProgramClusterRoutes", "programClusterRoutes", Form::Text),
    standard("AllowIPIPPacketsFromWorkloads", "allowIPIPPacketsFromWorkloads", Form::Flag),
    standard("AllowVXLANPacketsFromWorkloads", "allowVXLANPacketsFromWorkloads", Form::Flag),
    refused("ExternalNodesCIDRList", "externalNodesList", Form::List),
    standard("WorkloadSourceSpoofing", "workloadSourceSpoofing", Form::Text),
    standard("FloatingIPs", "floatingIPs", Form::Text),
    standard("NATOutgoingAddress", "natOutgoingAddress", Form::Text),
    refused("NATPortRange", "natPortRange", Form::Text),
    standard("NATOutgoingExclusions", "natOutgoingExclusions", Form::Text),
    standard("BPFEnforceRPF", "bpfEnforceRPF", Form::Text),
    standard("BPFConntrackTimeouts", "bpfConntrackTimeouts", Form::Pairs),
    refused("InterfacePrefix", "interfacePrefix", Form::Text),
    standard("InterfaceExclude", "interfaceExclude", Form::Text),
    refused("DefaultEndpointToHostAction", "defaultEndpointToHostAction", Form::Text),
    refused("FailsafeInboundHostPorts", "failsafeInboundHostPorts", Form::Ports),
    refused("FailsafeOutboundHostPorts", "failsafeOutboundHostPorts", Form::Ports),
    standard("DisableConntrackInvalidCheck", "disableConntrackInvalidCheck", Form::Flag),
    refused("NftablesFilterDenyAction", "nftablesFilterDenyAction", Form::Text),
    refused("IptablesFilterDenyAction", "iptablesFilterDenyAction", Form::Text),
    standard("LogPrefix", "logPrefix", Form::Text),
    standard("LogActionRateLimit", "logActionRateLimit", Form::Text),
    standard("LogActionRateLimitBurst", "logActionRateLimitBurst", Form::Number),
    refused("ReportingIntervalSecs", "reportingInterval", Form::Seconds),
    refused("ReportingTTLSecs", "reportingTTL", Form::Seconds),
    standard("EndpointReportingEnabled", "endpointReportingEnabled", Form::Flag),
    refused("EndpointReportingDelaySecs", "endpointReportingDelay", Form::Seconds),
];

/// The settings of one resource.
pub(super) struct Settings<'a> {
    spec: &'a Object<'a>,
    overrides: Vec<Override>,
    /// What is wrong with values in whose place the default is taken.
    pub(super) left_out: Vec<Fault>,
    /// Annotations without effect, with their places.
    pub(super) unused: Vec<(String, Option<Position>)>,
}

/// A setting that an annotation gives.
struct Override {
    field: &'static str,
    path: String,
    /// A spec that says nothing else.
    spec: Value,
}

impl<'a> Settings<'a> {
    pub(super) fn new(spec: &'a Object<'a>, annotations: &Object<'_>) -> Result<Settings<'a>, Fault> {
        let mut settings = Settings { spec, overrides: Vec::new(), left_out: Vec::new(), unused: Vec::new() };
        for (name, annotation) in annotations.fields() {
            let Some(name) = name.strip_prefix(ANNOTATION) else { continue };
            let path = annotation.path().to_owned();
            let Some(parameter) = PARAMETERS.iter().find(|known| known.name.eq_ignore_ascii_case(name))
            else {
                settings.unused.push((path, annotation.position()));
                continue;
            };
            let position = annotation.position();
            let value = Value { content: parameter.form.read(annotation.text()?), position };
            let spec = Content::Map(vec![(parameter.field.to_owned(), value)]);
            settings.overrides.push(Override {
                field: parameter.field,
                path,
                spec: Value { content: spec, position },
            });
        }
        Ok(settings)
    }

    /// A setting, by the name of the spec's field.
    ///
    /// # Errors
    /// A value of the spec of the wrong type, or one that Felix ends for.
    pub(super) fn get<T>(
        &mut self,
        field: &'static str,
        read: impl Fn(&Object<'_>, &'static str) -> Result<Setting<T>, Fault>,
    ) -> Result<Setting<T>, Fault> {
        if let Some(given) = self.overrides.iter().find(|given| given.field == field) {
            return Ok(read(&Object::top(&given.spec)?, field).unwrap_or_else(|fault| {
                self.unused.push((given.path.clone(), fault.position));
                Setting::Standard
            }));
        }
        let ends = |known: &&Parameter| known.field == field && known.bad == Bad::Refused;
        match read(self.spec, field) {
            // Of a value that isn't of its type, nobody reads the rest.
            Err(fault)
                if !matches!(fault.reason, Reason::WrongType { .. })
                    && PARAMETERS.iter().find(ends).is_none() =>
            {
                self.left_out.push(fault);
                Ok(Setting::Standard)
            }
            given => given,
        }
    }
}

impl Form {
    /// As the spec would say it; what can't be read is left as text. An empty one is as if it weren't there, and "none"
    /// is Felix's word for nothing at all.
    fn read(self, text: &str) -> Content {
        let is_none = text.eq_ignore_ascii_case("none");
        let as_it_is = || Content::Text(text.to_owned());
        let value = |text: &str| Value { content: Content::Text(text.to_owned()), position: None };
        match self {
            _ if text.is_empty() => Content::Null,
            Form::Flag => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "y" | "t" => Content::Bool(true),
                "false" | "0" | "no" | "n" | "f" | "none" => Content::Bool(false),
                _ => as_it_is(),
            },
            Form::Number if is_none => Content::Int(0),
            Form::Number => integer(text).map_or_else(as_it_is, Content::Int),
            Form::Text => as_it_is(),
            Form::Seconds => match text.parse::<f64>() {
                Ok(seconds) => Content::Text(format!("{seconds}s")),
                Err(_) => as_it_is(),
            },
            Form::List | Form::Ports if is_none => Content::List(Vec::new()),
            Form::List => Content::List(items(text).map(value).collect()),
            Form::Ports => Content::List(items(text).map(failsafe_port).collect()),
            Form::Pairs if is_none => Content::Map(Vec::new()),
            Form::Pairs => {
                let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
                let pair = |pair: &str| {
                    let (key, of) = pair.split_once('=')?;
                    Some((key.trim().to_owned(), value(of.trim())))
                };
                pairs.map(pair).collect::<Option<_>>().map_or_else(as_it_is, Content::Map)
            }
        }
    }
}

/// Between commas, which may have blanks around them and nothing between them.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// A number as Go's source code has it (`strconv.ParseInt` without a base).
fn integer(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (radix, digits) = match unsigned.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, &unsigned[2..]),
        Some("0o") => (8, &unsigned[2..]),
        Some("0b") => (2, &unsigned[2..]),
        Some(octal) if octal.starts_with('0') => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let sign = if text.starts_with('-') { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// TCP where no protocol is given; a network of IPv6 stands in brackets.
fn failsafe_port(text: &str) -> Value {
    let value = |content| Value { content, position: None };
    let text_of = |text: &str| value(Content::Text(text.to_owned()));
    let (before, port) = text.rsplit_once(':').unwrap_or(("", text));
    let (protocol, net) = match before.strip_suffix(']').and_then(|before| before.split_once('[')) {
        Some((protocol, net)) => (protocol.strip_suffix(':').unwrap_or(protocol), net),
        None => before.split_once(':').unwrap_or((before, "")),
    };
    let port = port.parse().map_or_else(|_| text_of(port), |port| value(Content::Int(port)));
    let mut entries = vec![("port".to_owned(), port)];
    let texts = [("protocol", protocol), ("net", net)].into_iter().filter(|(_, text)| !text.is_empty());
    entries.extend(texts.map(|(name, text)| (name.to_owned(), text_of(text))));
    value(Content::Map(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, number) in [
            ("0", 0),
            ("10", 10),
            ("-7", -7),
            ("+7", 7),
            ("0x1F", 31),
            ("-0X10", -16),
            ("0b11", 3),
            ("017", 15),
        ] {
            assert_eq!(integer(text), Some(number), "{text}");
        }
        for text in ["", "-", "0x", "08", "1.5", "ten", "--1", "0x-1", "9223372036854775808"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    /// `felix_config_params.jsonl`: which field each parameter is, and what Felix does for a value that is no good.
    #[test]
    fn the_parameters_are_felixs() {
        let folder = std::env::var_os("TORTIE_ORACLES")
            .map_or_else(|| "../../shared/oracles".into(), std::path::PathBuf::from);
        let Ok(rows) = std::fs::read_to_string(folder.join("felix_config_params.jsonl")) else {
            println!("skipped: no felix_config_params.jsonl in $TORTIE_ORACLES or ../shared/oracles");
            return;
        };
        let rows: Vec<serde_json::Value> =
            rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        for parameter in PARAMETERS {
            let row = rows.iter().find(|row| row["config"] == parameter.name).unwrap_or_else(|| {
                panic!("{} is no parameter", parameter.name);
            });
            assert_eq!(row["yaml"], parameter.field, "{}", parameter.name);
            let is_readable_text =
                !matches!(parameter.form, Form::Seconds) && parameter.name != "NATPortRange";
            if is_readable_text {
                let ends = row["on_parse_failure"] == "Exit";
                assert_eq!(parameter.bad == Bad::Refused, ends, "{}", parameter.name);
            }
        }
    }
}
