//! What an unquoted word is, its field decides, as with calicoctl: it reads YAML 1.1, where `yes` is a truth value, and asks Go's
//! types whether a text is wanted (`github.com/projectcalico/go-yaml-wrapper`, on go-yaml v2).
//!
//! ```text
//!  in a manifest                          is
//!  name: 7, labels: {rack: 7}             the text 7, and so for 1.50, which is 1.5, and true
//!  labels: {reflector: yes, spare: ~}     the texts true and nothing at all
//!  disabled: yes                          true
//!  node: n                                n: unlike with calicoctl, where no name can be a word for true or false
//! ```

use super::{Struct, Type, metadata, of};
use crate::ResourceKind;
use crate::document::{Content, Value};

/// Words for true and false that YAML has had until 1.2.
const YES: [&str; 8] = ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
const NO: [&str; 8] = ["n", "N", "no", "No", "NO", "off", "Off", "OFF"];
/// Where doubles no longer hold every whole number that was written.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Go writes numbers of more digits before the point than these with an exponent.
const DIGITS: i32 = 6;

/// Gives scalars of resources the form that their fields have. `older` are the same documents as YAML 1.1 has them.
///
/// Without those, are there words that may be truth values by it, where that matters?
pub(crate) fn spell(documents: &mut [Value], older: Option<&[Value]>) -> bool {
    let mut speller = Speller { undecided: false };
    for (place, document) in documents.iter_mut().enumerate() {
        speller.document(None, document, older.and_then(|older| older.get(place)));
    }
    speller.undecided
}

struct Speller {
    undecided: bool,
}

impl Speller {
    /// A document, or an item of a list of this kind.
    fn document(&mut self, kind: Option<ResourceKind>, document: &mut Value, older: Option<&Value>) {
        match &mut document.content {
            Content::List(items) => {
                for (place, item) in items.iter_mut().enumerate() {
                    self.document(None, item, item_of(older, place));
                }
            }
            Content::Map(entries) => {
                let name = entries.iter().find_map(|(name, value)| match &value.content {
                    Content::Text(kind) if name == "kind" => Some(kind.as_str()),
                    _ => None,
                });
                let list_of = name.and_then(|name| name.strip_suffix("List"));
                if let Some(item) = list_of {
                    let kind = ResourceKind::named(item);
                    let place = entries.iter().position(|(name, _)| name == "items");
                    let Some(place) = place else { return };
                    let older = entry_of(older, place);
                    let Content::List(items) = &mut entries[place].1.content else { return };
                    for (place, item) in items.iter_mut().enumerate() {
                        self.document(kind, item, item_of(older, place));
                    }
                    return;
                }
                // Others have nothing but their metadata in common with Calico's.
                let whole = name.map_or(kind, ResourceKind::named).map_or(&metadata::ALONE, of);
                self.structure(whole, entries, older);
            }
            _ => {}
        }
    }

    fn structure(&mut self, of: &Struct, entries: &mut [(String, Value)], older: Option<&Value>) {
        for (place, (name, value)) in entries.iter_mut().enumerate() {
            if let Some(member) = of.members.iter().find(|member| member.name.eq_ignore_ascii_case(name)) {
                self.value(member.ty, value, entry_of(older, place));
            }
        }
    }

    fn value(&mut self, ty: Type, value: &mut Value, older: Option<&Value>) {
        match (ty, &mut value.content) {
            (Type::Text, content) => as_text(content),
            (Type::Texts, Content::Map(entries)) => {
                for (place, (_, value)) in entries.iter_mut().enumerate() {
                    self.word(&mut value.content, entry_of(older, place));
                    as_text(&mut value.content);
                    if value.content == Content::Null {
                        value.content = Content::Text(String::new());
                    }
                }
            }
            (Type::Bool, content) => self.word(content, older),
            (Type::Struct(of), Content::Map(entries)) => self.structure(of, entries, older),
            (Type::List(ty), Content::List(items)) => {
                for (place, item) in items.iter_mut().enumerate() {
                    self.value(*ty, item, item_of(older, place));
                }
            }
            _ => {}
        }
    }

    /// A word that may be a truth value: in quotes it isn't, which YAML 1.1 knows.
    fn word(&mut self, content: &mut Content, older: Option<&Value>) {
        let Content::Text(text) = content else { return };
        if !YES.contains(&text.as_str()) && !NO.contains(&text.as_str()) {
            return;
        }
        match older {
            Some(Value { content: Content::Bool(flag), .. }) => *content = Content::Bool(*flag),
            Some(_) => {}
            None => self.undecided = true,
        }
    }
}

fn item_of(list: Option<&Value>, place: usize) -> Option<&Value> {
    let Content::List(items) = &list?.content else { return None };
    items.get(place)
}

fn entry_of(map: Option<&Value>, place: usize) -> Option<&Value> {
    let Content::Map(entries) = &map?.content else { return None };
    entries.get(place).map(|(_, value)| value)
}

/// A scalar as Go writes it where a text is wanted. What has lost digits stays, for its field to refuse.
fn as_text(content: &mut Content) {
    let text = match content {
        Content::Bool(flag) => flag.to_string(),
        Content::Int(number) => number.to_string(),
        Content::Fraction(number) if number.abs() < EXACT => short(*number),
        _ => return,
    };
    *content = Content::Text(text);
}

/// The shortest decimal that is this number (`strconv.FormatFloat(number, 'g', -1, 64)`).
fn short(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..DIGITS).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::document::{parse, parse_without_places};

    /// A document of this text as JSON, read with places and without.
    fn read(text: &str) -> serde_json::Value {
        let placed = parse(text, 10).unwrap_or_else(|(_, reason)| panic!("{text}: {reason}"));
        let unplaced = parse_without_places(text, 10).expect("YAML");
        let json = placed[0].to_json();
        assert_eq!(unplaced[0].to_json(), json, "{text}");
        json
    }

    #[test]
    fn labels_are_texts_whatever_they_look_like() {
        for (written, is) in [
            ("7", "7"),
            ("-7", "-7"),
            ("0x1F", "31"),
            ("1.50", "1.5"),
            ("2.0", "2"),
            ("1e3", "1000"),
            ("1234567.5", "1.2345675e+06"),
            ("0.00001", "1e-05"),
            ("true", "true"),
            ("False", "false"),
            ("yes", "true"),
            ("Off", "false"),
            ("y", "true"),
            ("'yes'", "yes"),
            ("\"on\"", "on"),
            ("!!str no", "no"),
            ("|-\n        off", "off"),
            ("&again yes", "true"),
            ("~", ""),
            ("yesterday", "yesterday"),
            ("1.2.3", "1.2.3"),
        ] {
            for kind in ["Node", "node", "NetworkPolicy", "SomethingElse"] {
                let text = format!("kind: {kind}\nmetadata:\n  labels:\n    a: {written}\n");
                assert_eq!(read(&text)["metadata"]["labels"], json!({ "a": is }), "{kind}, {written}");
            }
        }
    }

    #[test]
    fn a_field_says_what_its_word_is() {
        for (kind, written, is) in [
            (
                "Profile",
                "{labelsToApply: {rack: 7, spare: no}}",
                json!({"labelsToApply": {"rack": "7", "spare": "false"}}),
            ),
            ("IPPool", "{natOutgoing: yes}", json!({"natOutgoing": true})),
            ("IPPool", "{natOutgoing: 'yes'}", json!({"natOutgoing": "yes"})),
            ("IPPool", "{blockSize: 26}", json!({"blockSize": 26})),
            // Names are names.
            (
                "BGPPeer",
                "{node: n, filters: [on, 7, true]}",
                json!({"node": "n", "filters": ["on", "7", "true"]}),
            ),
            // These read numbers and texts alike.
            ("BGPPeer", "{asNumber: 65000}", json!({"asNumber": 65_000})),
            (
                "NetworkPolicy",
                "{ingress: [{protocol: 6, source: {selector: 1, ports: [80]}}]}",
                json!({"ingress": [{"protocol": 6, "source": {"selector": "1", "ports": [80]}}]}),
            ),
            // What isn't of its type stays for its reader to refuse.
            ("BGPPeer", "{maxRestartTime: 120}", json!({"maxRestartTime": 120})),
            (
                "BGPPeer",
                "{peerIP: [1], nodeSelector: {a: 1}}",
                json!({"peerIP": [1], "nodeSelector": {"a": 1}}),
            ),
            ("BGPPeer", "{peerIP: 1e300}", json!({"peerIP": 1e300})),
            ("BGPPeer", "{unknown: 7}", json!({"unknown": 7})),
        ] {
            let text = format!("kind: {kind}\nspec: {written}\n");
            assert_eq!(read(&text)["spec"], is, "{kind}: {written}");
        }
    }

    #[test]
    fn items_of_lists_are_spelled_too() {
        let labels = "metadata: {labels: {a: 1, b: yes}}";
        let expected = json!({"a": "1", "b": "true"});
        let listed = format!("kind: NodeList\nitems: [{{{labels}}}, {{kind: Node, {labels}}}]\n");
        for text in [listed, format!("kind: List\nitems: [{{kind: Node, {labels}}}]\n")] {
            let read = read(&text);
            for item in read["items"].as_array().expect("items") {
                assert_eq!(item["metadata"]["labels"], expected, "{text}");
            }
        }
        assert_eq!(read(&format!("[{{kind: Node, {labels}}}]"))[0]["metadata"]["labels"], expected);
    }
}
