use slowpath::status::{PeerStatus, PerFamily, PrefixLimitStatus};

use super::*;

fn peer(name: &str, address: &str, up: bool) -> PeerStatus {
    PeerStatus {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        asn: 64512,
        kind: "node-to-node mesh".to_owned(),
        state: if up { "Established" } else { "Active" }.to_owned(),
        up,
        since: "2016-11-21T23:30:04Z".to_owned(),
        since_seconds: if up { 60 } else { 1_000_000 },
        info: String::new(),
        received: PerFamily::default(),
        announced: PerFamily::default(),
        hold_time_seconds: None,
        messages_received: 0,
        messages_sent: 0,
        established_count: 1,
        last_error: (!up).then(|| "Connection refused".to_owned()),
        prefix_limit: PrefixLimitStatus::default(),
    }
}

fn bgp() -> BgpStatus {
    BgpStatus {
        local_as: 64512,
        router_id: Some("172.17.8.101".to_owned()),
        peers: vec![
            peer("Mesh_172_17_8_102", "172.17.8.102", true),
            peer("Global_10_20_30_40", "10.20.30.40", false),
            peer("Node_fd80_24e2_f998_72d7__2", "fd80:24e2:f998:72d7::2", true),
        ],
        ..BgpStatus::default()
    }
}

#[test]
fn sessions_of_a_family_are_shown_as_a_bird_of_calico_shows_its_own() {
    assert_eq!(
        answer("show protocols\n", &bgp(), true),
        "\
2002-name     proto    table    state  since       info
1002-Mesh_172_17_8_102 BGP      master   up     23:30:04    Established
 Global_10_20_30_40 BGP      master   start  2016-11-21  Active Connection refused
0000 \n"
    );
}

#[test]
fn a_command_that_nobody_knows_is_a_syntax_error() {
    assert_eq!(answer("configure\n", &bgp(), true), "9001 syntax error\n");
}

#[test]
fn what_the_server_says_reads_back_as_calicoctls_rows() {
    for (is_v4, separator, addresses) in
        [(true, ".", vec!["172.17.8.102", "10.20.30.40"]), (false, ":", vec!["fd80:24e2:f998:72d7::2"])]
    {
        let text = greeting() + &answer("show protocols", &bgp(), is_v4);
        let rows = read(text.as_bytes(), separator).unwrap();
        assert_eq!(rows.iter().map(|row| row.address.as_str()).collect::<Vec<_>>(), addresses);
    }
}

#[test]
fn protocols_of_a_real_bird_that_are_no_sessions_of_calicos_are_passed_over() {
    let text = "\
0001 BIRD 1.5.0 ready.
2002-name     proto    table    state  since       info
1002-kernel1  Kernel   master   up     2016-11-21
 device1  Device   master   up     2016-11-21
 Other_1_2_3_4 BGP      master   up     2016-11-21  Established
 Mesh_172_17_8_102 BGP      master   up     2016-11-21  Established
 Node_172_17_8_103 BGP      master   start  2016-11-21  Active        Socket: Connection refused
0000
";
    let row = |address: &str, kind, state: &str, info: &str| Row {
        address: address.to_owned(),
        kind,
        state: state.to_owned(),
        since: "2016-11-21".to_owned(),
        info: info.to_owned(),
    };
    assert_eq!(
        read(text.as_bytes(), ".").unwrap(),
        [
            row("172.17.8.102", "node-to-node mesh", "up", "Established"),
            row("172.17.8.103", "node specific", "start", "Active Socket: Connection refused"),
        ]
    );
}

#[test]
fn an_answer_of_another_form_is_refused() {
    let of = |text: &str| read(text.as_bytes(), ".").unwrap_err().to_string();
    assert_eq!(of("2002-name proto since\n"), "unknown BIRD table output format");
    assert_eq!(of("garbage\n"), "unexpected output line from BIRD");
}
