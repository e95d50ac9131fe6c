//! `tortie show icmp`: what senders were told.

use slowpath::status::IcmpStatus;

use super::table::Table;

/// One row for each thing that an error can tell, then what got no answer and why.
pub(super) fn table(status: &IcmpStatus) -> String {
    let mut errors = Table::new(&["ERROR", "IPV4", "IPV6"]);
    for (error, sent) in &status.errors {
        errors.row(vec![error.clone(), sent.ipv4.to_string(), sent.ipv6.to_string()]);
    }
    let mut silent = Table::new(&["NOT ANSWERED", "PACKETS"]);
    for (reason, count) in &status.silent {
        silent.row(vec![reason.clone(), count.to_string()]);
    }
    format!("{}\n{}", errors.columns(), silent.columns())
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::PerFamily;

    #[test]
    fn errors_are_counted_by_family_and_silence_by_reason() {
        let status = IcmpStatus {
            errors: [("too_big".to_owned(), PerFamily { ipv4: 3, ipv6: 1 })].into(),
            silent: [("rate_limited".to_owned(), 7)].into(),
        };
        assert_eq!(
            table(&status),
            "\
ERROR     IPV4   IPV6
too_big   3      1

NOT ANSWERED   PACKETS
rate_limited   7
"
        );
    }
}
