// The views: each asks for what `tortie show … -o json` prints, and lays it out.

let about = { drops: {}, punts: {}, queues: {} };
const link = (view, parameters) => `#${view}?${new URLSearchParams(Object.entries(parameters).filter(([, value]) => value))}`;

// ---- overview: ports and rates ----
class Overview {
  constructor() {
    this.rates = new Rates();
    this.tiles = Object.fromEntries([["received", "Received"], ["forwarded", "Forwarded"], ["dropped", "Dropped"], ["punted", "To the slow path"], ["bgp", "BGP sessions"], ["routes", "Routes"]]
      .map(([name, title]) => [name, new Tile(title)]));
    this.ports = new Table({
      caption: "Ports", key: (port) => port.name, empty: "No port is open.",
      columns: [
        { title: "Name", value: (p) => p.name, kind: "mono nowrap" },
        { title: "Kind", value: (p) => p.kind, wide: true },
        { title: "State", value: (p) => p.up ? "up" : "down", cell: (p) => ({ text: p.up ? "up" : "down", class: p.up ? "good" : "bad" }) },
        { title: "Receives", value: (p) => p.in_packets, cell: (p) => rate(p.in_packets), kind: "num" },
        { title: "", cell: (p) => bits(p.in_bytes), kind: "num" },
        { title: "Sends", value: (p) => p.out_packets, cell: (p) => rate(p.out_packets), kind: "num" },
        { title: "", cell: (p) => bits(p.out_bytes), kind: "num" },
        { title: "Drops", value: (p) => p.dropped, cell: (p) => ({ text: p.drops ? `${count(p.dropped)} (${rate(p.drops)})` : count(p.dropped), title: "Packets received here that the walk dropped" }), kind: "num" },
        { title: "Lost", value: (p) => p.lost, cell: (p) => ({ text: count(p.lost), class: p.losing ? "bad" : "", title: "Packets lost before the walk saw them" }), kind: "num" },
        { title: "MTU", value: (p) => p.mtu, kind: "num", wide: true },
        { title: "Queues", cell: (p) => p.got, kind: "nowrap", wide: true },
        { title: "Endpoint", value: (p) => p.endpoint, cell: (p) => p.endpoint ? { text: p.endpoint, href: link("policy", { in: p.name }) } : "", kind: "mono nowrap", wide: true },
      ],
    });
    this.queues = new Table({
      caption: "Queues that have lost something", key: (q) => `${q.port} ${q.queue} ${q.name}`, empty: "None has.",
      columns: [
        { title: "Port", value: (q) => q.port, kind: "mono nowrap" },
        { title: "Queue", value: (q) => q.queue, kind: "num" },
        { title: "Worker", value: (q) => q.worker, kind: "num" },
        { title: "Counter", value: (q) => q.name, kind: "mono" },
        { title: "Count", value: (q) => q.count, cell: (q) => count(q.count), kind: "num" },
        { title: "A second", value: (q) => q.rate, cell: (q) => rate(q.rate), kind: "num" },
        { title: "Meaning", cell: (q) => about.queues[q.name], kind: "words", wide: true },
      ],
    });
    this.notes = el("div");
    this.books = el("p", { class: "quiet" });
    this.node = el("div", {}, this.notes, el("div", { class: "tiles" }, ...Object.values(this.tiles).map((tile) => tile.node)),
      this.ports.node, this.books, el("h2", {}, "Before the walk"), this.queues.node);
  }
  async load() {
    const [ports, drops, bgp, routes, datastore] = await Promise.all(
      ["ports", "drops", "bgp", "routes", "datastore"].map((what) => ask(`/api/show/${what}`)));
    this.rates.begin();
    const of = (name, value) => this.rates.of(name, value);
    const sums = { in: [0, 0], out: [0, 0] };
    const sum = (list, values) => values.forEach((value, at) => { list[at] = value == null ? list[at] : list[at] + value; });
    const lost = (x) => x.rx_dropped + x.rx_too_long + x.rx_no_large_frame + x.rx_ring_full;
    const queues = [];
    const rows = ports.ports.map((port) => {
      const row = { ...port, got: [...new Set(port.queues.map((q) => `${q.mode}, ${q.attach}`))].join(" / ") };
      row.got = port.queues.length > 1 ? `${port.queues.length} × ${row.got}` : row.got || "none";
      [row.in_packets, row.in_bytes] = [of(`${port.name} rp`, port.received.packets), of(`${port.name} rb`, port.received.bytes)];
      [row.out_packets, row.out_bytes] = [of(`${port.name} fp`, port.forwarded.packets), of(`${port.name} fb`, port.forwarded.bytes)];
      row.drops = of(`${port.name} d`, port.dropped);
      row.lost = port.queues.map((q) => lost(q.xdp)).reduce((a, b) => a + b, 0);
      row.losing = of(`${port.name} lost`, row.lost) > 0;
      sum(sums.in, [row.in_packets, row.in_bytes]);
      sum(sums.out, [row.out_packets, row.out_bytes]);
      for (const q of port.queues) for (const [name, value] of Object.entries(q.xdp)) {
        const change = of(`${port.name} ${q.queue} ${name}`, value);
        // Of rings that were found empty, nothing is lost.
        if (value && name !== "tx_ring_empty") queues.push({ port: port.name, queue: q.queue, worker: q.worker, name, count: value, rate: change });
      }
      return row;
    });
    this.ports.show(rows, `frames hold packets of up to ${ports.receivable} bytes`);
    this.queues.show(queues);
    const known = this.rates.seconds > 0;
    const { received, forwarded, dropped, punted } = this.tiles;
    received.show(known ? rate(sums.in[0]) : "–", known ? bits(sums.in[1]) : "", known ? sums.in[0] : null);
    forwarded.show(known ? rate(sums.out[0]) : "–", known ? bits(sums.out[1]) : "", known ? sums.out[0] : null);
    const [lossy, up] = [of("dropped", drops.dropped.total), of("punted", drops.punted.total)];
    const worst = Object.entries(drops.dropped.reasons).map(([name, value]) => [name, of(`reason ${name}`, value) || 0]).sort((a, b) => b[1] - a[1])[0];
    dropped.show(rate(lossy), worst && worst[1] > 0 ? `most: ${worst[0]}` : `${count(drops.dropped.total)} in all`, lossy);
    punted.show(rate(up), `${count(drops.punted.total)} in all`, up);
    const established = bgp.peers.filter((peer) => peer.up).length;
    this.tiles.bgp.show(`${established} of ${bgp.peers.length}`, `AS ${bgp.local_as}, ${bgp.router_id || "no router ID yet"}`, bgp.peers.length ? established / bgp.peers.length : null);
    this.tiles.bgp.node.classList.toggle("alarm", established < bgp.peers.length);
    const sources = Object.entries(routes.counts).filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1]);
    this.tiles.routes.show(count(routes.total), sources.slice(0, 3).map(([name, value]) => `${name} ${count(value)}`).join(", "), routes.total);
    write(this.books, books(drops));
    const said = ports.ports.flatMap((port) => port.warnings.map((warning) => `${port.name}: ${warning}`))
      .concat(ports.problems.map((problem) => `${problem.name} is not a port: ${problem.problem}`));
    if (datastore.stale_since) said.push(`The datastore hasn't been followed for ${span(datastore.stale_seconds)}: ${datastore.stale_reason || "nobody says why"}`);
    for (const [file, why] of Object.entries(datastore.invalid)) said.push(`${file}: ${why}`);
    replace(this.notes, said);
  }
}
const books = (d) => {
  const cut = d.fragmented ? ` + ${count(d.fragments)} fragments made` : "";
  const went = d.fragmented ? ` + ${count(d.fragmented)} cut into fragments` : "";
  return `${count(d.received)} received + ${count(d.injected)} injected${cut} = ${count(d.forwarded)} forwarded${went} + ${count(d.punted.total)} to the slow path + ${count(d.dropped.total)} dropped: ${d.balanced ? "the books balance" : "THE BOOKS DO NOT BALANCE"}.`;
};
const replace = (node, list) => {
  const sign = JSON.stringify(list);
  if (node.dataset.sign === sign) return;
  node.dataset.sign = sign;
  node.replaceChildren(...[notes(list)].filter(Boolean));
};

// ---- drops by reason ----
class Drops {
  constructor() {
    this.rates = new Rates();
    const table = (caption, meanings, empty) => new Table({
      caption, key: (row) => row.reason, empty, sort: [1, "down"],
      columns: [
        { title: "Reason", value: (row) => row.reason, kind: "mono nowrap" },
        { title: "Packets", value: (row) => row.count, cell: (row) => count(row.count), kind: "num" },
        { title: "A second", value: (row) => row.rate, cell: (row) => rate(row.rate), kind: "num" },
        { title: "Meaning", cell: (row) => meanings()[row.reason], kind: "words" },
      ],
    });
    this.dropped = table("Dropped", () => about.drops, "Nothing has been dropped.");
    this.punted = table("Given to the slow path", () => about.punts, "Nothing has been given to it.");
    this.all = el("input", { type: "checkbox", on: { change: () => refresh() } });
    this.books = el("p", { class: "quiet" });
    this.node = el("div", {}, this.books, el("p", {}, el("label", { class: "check" }, this.all, "also reasons that never occurred")),
      this.dropped.node, el("h2", {}, "Not lost"), this.punted.node);
  }
  async load() {
    const drops = await ask("/api/show/drops");
    this.rates.begin();
    const rows = (kind) => Object.entries(drops[kind].reasons)
      .map(([reason, count]) => ({ reason, count, rate: this.rates.of(`${kind} ${reason}`, count) }))
      .filter((row) => this.all.checked || row.count > 0);
    this.dropped.show(rows("dropped"), `${count(drops.dropped.total)} in all`);
    this.punted.show(rows("punted"), `${count(drops.punted.total)} in all`);
    write(this.books, books(drops));
  }
}

// ---- BGP sessions ----
class Bgp {
  constructor() {
    const family = (counts) => counts.ipv6 || counts.ipv4 ? `${count(counts.ipv4)} v4, ${count(counts.ipv6)} v6` : "0";
    this.peers = new Table({
      caption: "Sessions", key: (peer) => `${peer.name} ${peer.address}`, empty: "No session is asked for.",
      columns: [
        { title: "Peer", value: (p) => p.address, kind: "mono nowrap" },
        { title: "Type", value: (p) => p.type, kind: "nowrap", wide: true },
        { title: "AS", value: (p) => p.asn, cell: (p) => String(p.asn), kind: "num" },
        { title: "State", value: (p) => p.state, cell: (p) => ({ text: p.state, class: p.up ? "good" : "bad" }) },
        { title: "For", value: (p) => p.since_seconds, cell: (p) => ({ text: span(p.since_seconds), title: p.since }), kind: "num" },
        { title: "Received", value: (p) => p.received.ipv4 + p.received.ipv6, cell: (p) => family(p.received), kind: "num" },
        { title: "Announced", value: (p) => p.announced.ipv4 + p.announced.ipv6, cell: (p) => family(p.announced), kind: "num" },
        { title: "Came up", value: (p) => p.established_count, cell: (p) => `${count(p.established_count)} ×`, kind: "num", wide: true },
        { title: "Messages in / out", value: (p) => p.messages_received, cell: (p) => `${count(p.messages_received)} / ${count(p.messages_sent)}`, kind: "num", wide: true },
        { title: "What to know, and the last error", cell: (p) => [...new Set([p.info, p.last_error])].filter(Boolean).join("; "), kind: "words" },
      ],
    });
    this.bfd = new Table({
      caption: "Watched by BFD", key: (s) => `${s.address} ${s.interface}`, empty: "Nobody is.",
      columns: [
        { title: "Peer", value: (s) => s.address, kind: "mono" },
        { title: "Interface", value: (s) => s.interface, kind: "mono" },
        { title: "State", value: (s) => s.state, cell: (s) => ({ text: s.state, class: s.state === "Up" ? "good" : "bad" }) },
        { title: "Noticed after", cell: (s) => s.detection_time_us ? `${s.detection_time_us / 1000} ms` : "", kind: "num" },
      ],
    });
    this.who = el("p", { class: "quiet" });
    this.node = el("div", {}, this.who, this.peers.node, el("h2", {}, "Failure detection"), this.bfd.node);
  }
  async load() {
    const [bgp, bfd] = await Promise.all([ask("/api/show/bgp"), ask("/api/show/bfd")]);
    write(this.who, `Local AS ${bgp.local_as}, router ID ${bgp.router_id || "not known yet"}`);
    this.peers.show(bgp.peers.map((peer) => ({ ...peer, alarm: !peer.up })), `${bgp.peers.filter((peer) => peer.up).length} of ${bgp.peers.length} established`);
    this.bfd.show(bfd.bfd_sessions);
  }
}

// ---- route look-up ----
const FATES = {
  forward: ["good", "forwarded"], attached: ["good", "sent to the address itself, which is on the link"],
  local: ["good", "taken by this host's kernel"], blackhole: ["bad", "dropped: the route is a blackhole"],
  rejected: ["bad", "dropped, and the sender is told by ICMP"], prohibited: ["bad", "dropped, and the sender is told by ICMP"],
  broadcast: ["bad", "dropped: a broadcast address"], unresolved: ["warn", "held up: no next hop's MAC address is known yet"],
  no_route: ["bad", "answered with ICMP “unreachable”: no route covers it"],
};
class Route {
  constructor() {
    this.form = el("form", { on: { submit: (event) => go(event, "route") } },
      field("Address", "address", "", { required: true, placeholder: "10.65.0.7 or fd00::7", size: 30 }),
      el("button", { class: "main" }, "Look up"));
    this.verdict = el("div", { hidden: true });
    this.hops = new Table({
      caption: "Next hops", empty: "None: the packet goes nowhere from here.",
      columns: [
        { title: "Next hop", cell: (h) => h.via || h.kind, kind: "mono" }, { title: "Port", cell: (h) => h.port, kind: "mono" },
        { title: "MAC address", cell: (h) => h.mac, kind: "mono" },
        { title: "Tunnel", cell: (h) => h.tunnel ? `${h.tunnel.kind}${h.tunnel.vni == null ? "" : ` vni ${h.tunnel.vni}`} to ${h.tunnel.remote}` : "", kind: "mono" },
      ],
    });
    this.others = new Table({
      caption: "Other sources for the same prefix", empty: "None.",
      columns: [
        { title: "Source", cell: (o) => o.source }, { title: "Preference", cell: (o) => o.preference, kind: "num" },
        { title: "By", cell: (o) => o.via.join(", "), kind: "mono" }, { title: "Why it isn't taken", cell: (o) => o.reason, kind: "words" },
      ],
    });
    this.paths = new Table({
      caption: "BGP's paths to it", empty: "BGP has none.",
      columns: [
        { title: "From", cell: (p) => p.peer || "ourselves", kind: "mono" },
        { title: "Standing", cell: (p) => ({ text: p.stale ? `${p.standing}, stale` : p.standing, class: ["best", "multipath"].includes(p.standing) ? "good" : "quiet" }) },
        { title: "Why", cell: (p) => p.reason || (p.standing === "best" ? "it won" : ""), kind: "words" },
        { title: "Next hop", cell: (p) => p.nexthop, kind: "mono" }, { title: "AS path", cell: (p) => p.as_path.join(" "), kind: "mono" },
        { title: "Origin", cell: (p) => p.origin, wide: true }, { title: "Local pref.", cell: (p) => p.local_pref, kind: "num" },
        { title: "MED", cell: (p) => p.med, kind: "num", wide: true }, { title: "Cost", cell: (p) => p.metric, kind: "num", wide: true },
        { title: "Communities", cell: (p) => p.communities.join(" "), kind: "mono", wide: true },
      ],
    });
    this.found = el("div", { hidden: true }, this.hops.node, el("h2", {}, "Why this one"), this.others.node, this.paths.node);
    this.node = el("div", {}, this.form, this.verdict, this.found);
  }
  async load(parameters) {
    fillIn(this.form, parameters);
    if (!parameters.address) { this.verdict.hidden = this.found.hidden = true; return; }
    const route = await asked(this.verdict, () => ask("/api/show/route", { address: parameters.address }));
    this.found.hidden = !route || !route.prefix;
    if (!route) return;
    const [kind, words] = FATES[route.fate] || ["warn", route.fate];
    const source = route.prefix ? `covered by ${route.prefix} of ${route.source}, preference ${route.preference}${route.installed ? "" : "; not in the fast path's table"}` : "";
    answer(this.verdict, kind, `${route.address} is ${words}`, source);
    if (!route.prefix) return;
    this.hops.show(route.nexthops);
    this.others.show(route.others || []);
    const bgp = await ask("/api/show/bgp", { prefix: route.prefix });
    this.paths.show(bgp.paths);
  }
}

// ---- policy: what becomes of a packet, and which rule says so ----
class Policy {
  constructor() {
    this.ports = el("datalist", { id: "ports" });
    const protocols = ["tcp", "udp", "icmp", "icmpv6", "sctp"].map((name) => el("option", { value: name }, name));
    this.form = el("form", { on: { submit: (event) => go(event, "policy") } },
      field("Comes in by (port or endpoint)", "in", "", { list: "ports", placeholder: "the sender's own", size: 24 }), this.ports,
      field("From", "src", "", { required: true, placeholder: "10.65.0.2", size: 22 }), field("port", "sport", "", { inputmode: "numeric", size: 6, placeholder: "49152" }),
      field("To", "dst", "", { required: true, placeholder: "10.65.1.7", size: 22 }), field("port", "dport", "", { inputmode: "numeric", size: 6, placeholder: "443" }),
      el("label", {}, "Protocol", el("select", { name: "proto" }, ...protocols)), el("button", { class: "main" }, "Explain"));
    this.verdict = el("div", { hidden: true });
    this.rules = new Table({
      caption: "What decided", empty: "No policy was asked.",
      columns: [
        { title: "Endpoint", cell: (r) => r.endpoint, kind: "mono" }, { title: "Direction", cell: (r) => r.direction },
        { title: "Says", cell: (r) => ({ text: r.staged ? `${r.action} (staged)` : r.action, class: r.staged ? "quiet" : r.action === "allow" ? "good" : r.action === "deny" ? "bad" : "" }) },
        { title: "Tier", cell: (r) => r.tier, kind: "mono" }, { title: "Policy", cell: (r) => r.policy, kind: "mono" },
        { title: "Rule", cell: (r) => r.what, kind: "mono" }, { title: "In words", cell: (r) => r.text, kind: "words" },
      ],
    });
    this.stages = new Table({
      caption: "Stage by stage",
      columns: [{ title: "Stage", cell: (s) => s.stage, kind: "mono nowrap" }, { title: "Found", cell: (s) => s.found, kind: "words" }],
    });
    this.found = el("div", { hidden: true }, this.rules.node, el("h2", {}, "The packet's way"), this.stages.node);
    this.counts = new Table({
      caption: "Rules that have decided", key: (r) => [r.endpoint, r.direction, r.tier, r.policy, r.what].join("\n"), empty: "None has decided on a packet yet.", sort: [6, "down"],
      columns: [
        { title: "Endpoint", value: (r) => r.endpoint, kind: "mono" }, { title: "Direction", value: (r) => r.direction },
        { title: "Tier", value: (r) => r.tier, kind: "mono", wide: true }, { title: "Policy", value: (r) => r.policy, kind: "mono" }, { title: "Rule", value: (r) => r.what, kind: "mono nowrap" },
        { title: "Action", value: (r) => r.action, cell: (r) => ({ text: r.action, class: r.action === "allow" ? "good" : r.action === "deny" ? "bad" : "" }) },
        { title: "Packets", value: (r) => r.packets, cell: (r) => count(r.packets), kind: "num" },
        { title: "In words", cell: (r) => r.text, kind: "words", wide: true },
      ],
    });
    this.closed = el("div");
    this.node = el("div", {}, el("p", { class: "quiet" }, "A packet that is made up goes through the walk by the tables in force. It leaves nowhere, nothing counts it, and no flow begins with it."),
      this.form, this.verdict, this.found, el("h2", {}, "What policy has decided"), this.closed, this.counts.node);
  }
  async load(parameters) {
    fillIn(this.form, parameters);
    const [ports, policy] = await Promise.all([ask("/api/show/ports"), ask("/api/show/policy")]);
    const names = ports.ports.flatMap((port) => [port.name, port.endpoint]).filter(Boolean);
    if (this.ports.dataset.sign !== names.join("\n")) {
      this.ports.dataset.sign = names.join("\n");
      this.ports.replaceChildren(...names.map((value) => el("option", { value })));
    }
    this.counts.show(policy.rules, policy.left_out ? `${plural(policy.left_out, "rule", "rules")} more aren't listed` : "");
    replace(this.closed, policy.closed.map((endpoint) => `${endpoint} is closed: its policy doesn't fit the tables; the log says why`));
    if (!parameters.src || !parameters.dst) { this.verdict.hidden = this.found.hidden = true; return; }
    const { in: port, src, dst, proto, sport, dport } = parameters;
    const found = await asked(this.verdict, () => ask("/api/trace", { in: port, src, dst, proto: proto || "tcp", sport, dport }));
    const packet = found && found.packets[0];
    this.found.hidden = !packet;
    if (!packet) return;
    const why = packet.reason ? `${packet.reason}: ${about.drops[packet.reason] || about.punts[packet.reason] || ""}` : packet.leaves_by ? `leaves by ${packet.leaves_by}` : "";
    const [kind, words] = { forward: ["good", "Forwarded"], fragment: ["good", "Cut into fragments and forwarded"], punt: ["warn", "Given to the slow path"], drop: ["bad", "Dropped"] }[packet.fate] || ["warn", packet.fate];
    answer(this.verdict, kind, words, why);
    this.rules.show(packet.policy);
    this.stages.show(packet.stages);
  }
}

// ---- flows ----
class Flows {
  constructor() {
    this.form = el("form", { on: { submit: (event) => go(event, "flows") } },
      field("Address, on either side, before or after translation", "address", "", { placeholder: "any", size: 30 }),
      el("label", {}, "At most", el("select", { name: "limit" }, ...["50", "200", "1000"].map((value) => el("option", { value }, value)))),
      field("Only rows with", "text", "", { placeholder: "tcp, new, :443 …", size: 16, on: { input: () => this.lay() } }), el("button", { class: "main" }, "Show"));
    this.verdict = el("div", { hidden: true });
    const ends = (e) => `${address(e.source, e.source_port)} → ${address(e.destination, e.destination_port)}`;
    this.ends = ends;
    this.flows = new Table({
      caption: "Flows, those heard last first", key: (f) => `${f.protocol} ${ends(f.original)} ${ends(f.translated)}`, empty: "None is remembered: where nothing is translated and no policy is asked, none needs to be.",
      columns: [
        { title: "Protocol", value: (f) => f.protocol }, { title: "Source", value: (f) => f.original.source, cell: (f) => address(f.original.source, f.original.source_port), kind: "mono nowrap" },
        { title: "Destination", value: (f) => f.original.destination, cell: (f) => address(f.original.destination, f.original.destination_port), kind: "mono nowrap" },
        { title: "Translated to", cell: (f) => ends(f.original) === ends(f.translated) ? "" : ends(f.translated), kind: "mono nowrap" },
        { title: "State", value: (f) => f.state }, { title: "Silent", value: (f) => f.silent, cell: (f) => span(f.silent), kind: "num" },
      ],
    });
    this.top = new Table({
      caption: "Sources with the most flows", key: (s) => s.source, empty: "None.",
      columns: [{ title: "Source", cell: (s) => ({ text: s.source, href: link("flows", { address: s.source }) }), kind: "mono" }, { title: "Flows", cell: (s) => ({ text: count(s.flows), meter: s.part }), kind: "num" }],
    });
    this.sums = el("p", { class: "quiet" });
    this.node = el("div", {}, this.form, this.verdict, this.sums, this.flows.node, el("h2", {}, "Who has most"), this.top.node);
    this.rows = [];
  }
  async load(parameters) {
    fillIn(this.form, parameters, ["text"]);
    const got = await asked(this.verdict, () => ask("/api/show/flows", { address: parameters.address, limit: parameters.limit || "50" }));
    if (!got) return;
    this.verdict.hidden = true;
    this.rows = got.flows;
    this.total = got.total;
    this.lay();
    this.top.show(got.sources.map((s) => ({ ...s, part: s.flows / Math.max(got.total, 1) })));
    write(this.sums, `${count(got.in_use)} of ${count(got.size)} rows in use, ${plural(got.ports, "outer port", "outer ports")}, ${count(got.evicted)} flows evicted, ${count(got.over_share)} packets above a workload's share of ports.`);
  }
  lay() {
    const text = this.form.elements.text.value.trim().toLowerCase();
    const rows = this.rows.filter((f) => !text || `${f.protocol} ${this.ends(f.original)} ${this.ends(f.translated)} ${f.state}`.toLowerCase().includes(text));
    this.flows.show(rows, `${count(rows.length)} of ${count(this.total || 0)}`);
  }
}

// ---- workers: where the time goes ----
class Workers {
  constructor() {
    this.rates = new Rates();
    this.stages = new Table({
      caption: "Clocks a packet, by stage of the walk", key: (row) => `${row.worker} ${row.stage}`, empty: "No batch has been timed yet.",
      columns: [
        { title: "Worker", value: (r) => r.worker, cell: (r) => String(r.worker), kind: "num" }, { title: "Stage", value: (r) => r.stage, kind: "mono" },
        { title: "Lately", value: (r) => r.lately, cell: (r) => ({ text: r.lately == null ? "–" : r.lately.toFixed(1), meter: r.part }), kind: "num" },
        { title: "Since the start", value: (r) => r.mean, cell: (r) => r.mean.toFixed(1), kind: "num" },
      ],
    });
    this.node = el("div", {}, el("p", { class: "quiet" }, "Of one batch in 64, which is timed."), this.stages.node);
  }
  async load() {
    const { workers } = await ask("/api/show/stages");
    this.rates.begin();
    const rows = workers.filter((worker) => worker.packets).flatMap((worker) => {
      const packets = this.rates.of(`${worker.worker}`, worker.packets);
      const lines = Object.entries(worker.ticks).map(([stage, ticks]) => {
        const change = this.rates.of(`${worker.worker} ${stage}`, ticks);
        return { worker: worker.worker, stage, mean: ticks / worker.packets, lately: packets ? change / packets : null };
      });
      const top = Math.max(...lines.map((line) => line.lately || 0), 1e-9);
      return lines.map((line) => ({ ...line, part: (line.lately || 0) / top }));
    });
    this.stages.show(rows);
  }
}

// ---- what all views share ----
const answer = (node, kind, verdict, more) => {
  const sign = JSON.stringify([kind, verdict, more]);
  node.hidden = false;
  if (node.dataset.sign === sign) return;
  node.dataset.sign = sign;
  node.className = `answer ${kind}`;
  node.setAttribute("role", "status");
  node.replaceChildren(el("p", { class: "verdict" }, verdict), el("p", { class: "mono" }, more || ""));
};
// What somebody has asked wrongly stands beside the question, not above the page.
const asked = async (node, question) => {
  try { return await question(); } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    answer(node, "warn", "That can't be answered", error.message);
    return null;
  }
};
const fillIn = (form, parameters, except = []) => {
  const sign = JSON.stringify(parameters);
  if (form.dataset.sign === sign) return;
  form.dataset.sign = sign;
  for (const input of form.elements) if (input.name && !except.includes(input.name) && (parameters[input.name] || input.tagName === "INPUT")) input.value = parameters[input.name] || "";
};
const go = (event, view) => {
  event.preventDefault();
  const parameters = Object.fromEntries([...new FormData(event.target)].map(([name, value]) => [name, value.trim()]));
  delete parameters.text;
  const next = link(view, parameters);
  if (location.hash === next) refresh(); else location.hash = next;
};

const VIEWS = [["overview", "Overview", Overview], ["drops", "Drops", Drops], ["bgp", "BGP", Bgp], ["route", "Route", Route], ["policy", "Policy", Policy], ["flows", "Flows", Flows], ["workers", "Workers", Workers]];
const EVERY = 2000;
const shown = new Map();
let current = null, timer = null, paused = false, busy = false, again = false;

const place = () => {
  const [name, query] = location.hash.slice(1).split("?", 2);
  const known = VIEWS.find(([view]) => view === name) || VIEWS[0];
  return { view: known, parameters: Object.fromEntries(new URLSearchParams(query || "")) };
};
const turn = () => {
  if (location.hash === "#main") return;
  const { view: [name, title, Kind] } = place();
  if (!shown.has(name)) shown.set(name, new Kind());
  if (current !== name) {
    current = name;
    $("main").replaceChildren(shown.get(name).node);
    write($("source"), "The same by tortie show and tortie trace.");
    for (const [view, anchor] of anchors) if (view === name) anchor.setAttribute("aria-current", "page"); else anchor.removeAttribute("aria-current");
    document.title = `${title} · ${about.node || "tortie"}`;
  }
  refresh();
};
const state = async () => {
  const readiness = await ask("/readyz");
  const [kind, words] = readiness.ready ? readiness.warnings.length ? ["warn", "ready, with warnings"] : ["good", "ready"] : ["bad", "not ready"];
  $("state").className = `pill ${kind}`;
  write($("state"), words);
  $("state").title = readiness.waits_for.map((wait) => wait.why).concat(readiness.warnings).join("\n");
};
const refresh = async () => {
  if (busy) { again = true; return; }
  clearTimeout(timer);
  busy = true;
  try {
    if (!about.node) {
      about = await ask("/api/about");
      write($("node"), about.node);
      write($("version"), `version ${about.version}`);
      document.title = `${place().view[1]} · ${about.node}`;
    }
    await Promise.all([state(), shown.get(current).load(place().parameters)]);
    $("trouble").hidden = true;
    write($("updated"), `Updated ${new Date().toLocaleTimeString("en-GB")}.`);
  } catch (error) {
    write($("trouble"), error instanceof Trouble ? error.message : `This page has failed: ${error.message}`);
    $("trouble").hidden = false;
    $("state").className = "pill bad";
    write($("state"), "no answer");
  }
  busy = false;
  document.body.dataset.looks = Number(document.body.dataset.looks || 0) + 1;
  if (again) { again = false; refresh(); return; }
  if (!paused && !document.hidden) timer = setTimeout(refresh, EVERY);
};
const anchors = VIEWS.map(([name, title]) => [name, el("a", { href: `#${name}` }, title)]);
$("views").append(...anchors.map(([, anchor]) => el("li", {}, anchor)));
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  write($("pause"), paused ? "Go on" : "Pause");
  if (paused) clearTimeout(timer); else refresh();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) refresh(); });
window.addEventListener("hashchange", turn);
turn();
