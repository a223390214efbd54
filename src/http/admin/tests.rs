//! The admin listener over real sockets: every refusal by its status, and what it leaves behind.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::audience::{Builder, RowFormat, VersionMeta};
use crate::config::Config;
use crate::datasets::Settings;
use crate::datasets::tests::{NOW, frame};
use crate::ids::{Hex, Keyer, Kind, SecretKey};
use crate::storage::Storage;

const V1: &str = "/v1/datasets/crm/versions/1";
const ROWS: &[u8] = b"source,id,segments\nifa,a,vip\nifa,b,vip|new\n";

pub(super) struct Service {
    server: AdminServer,
    pub(super) state: Arc<AdminState>,
    dir: tempfile::TempDir,
}

pub(super) fn serve(config: &str) -> Service {
    let dir = tempfile::tempdir().expect("a folder");
    let config = Config::from_toml(config, "test").expect("a good configuration");
    let storage = Storage::start(dir.path()).expect("started");
    let registry = prometheus::Registry::new();
    let settings = Settings::of(&config, frame(&config));
    let (datasets, _live) = Datasets::open(settings, storage, &registry).expect("opened");
    datasets.recover(NOW).expect("ready");
    let lenses = Lenses {
        user: Box::new(|source, id| json!({"source": source, "id": id})),
        explain: Box::new(|exchange, body| match exchange {
            "demo" => Ok(json!({"exchange": exchange, "bytes": body.len()})),
            _ => Err(Problem::new(404, "unknown_exchange", "no such exchange")),
        }),
    };
    let state = Arc::new(AdminState {
        datasets,
        registry,
        tokens: config.admin.tokens.clone(),
        limits: config.limits,
        books: None,
        people: None,
        lenses,
        ready: Box::new(|| Ok(())),
        now: || NOW,
    });
    let any = "127.0.0.1:0".parse().expect("an address");
    let server = AdminServer::start(any, Arc::clone(&state)).expect("started");
    Service { server, state, dir }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    #[track_caller]
    fn is(self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert_eq!(self.status, status, "{text}");
        if status >= 400 {
            assert!(
                self.head.contains("application/problem+json"),
                "{}",
                self.head
            );
            let problem = self.json();
            assert_eq!(problem["status"], status);
            assert!(problem["detail"].as_str().is_some_and(|d| d.len() > 10));
        }
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

fn read_reply(stream: &mut TcpStream) -> Reply {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set");
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 65536];
    loop {
        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = head {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .map_or(0, |l| l.trim().parse::<usize>().expect("a length"));
            if bytes.len() >= end + 4 + length {
                let status = head[9..12].parse().expect("a status");
                let body = bytes[end + 4..end + 4 + length].to_vec();
                return Reply { status, head, body };
            }
        }
        let read = stream.read(&mut chunk).expect("an answer");
        assert!(read > 0, "closed without an answer");
        bytes.extend_from_slice(&chunk[..read]);
    }
}

impl Service {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).expect("connected")
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.connect();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: kith\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        read_reply(&mut stream)
    }

    fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], b"")
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, &[], body.to_string().as_bytes())
    }

    fn put(&self, path: &str, body: &[u8]) -> Reply {
        self.ask("PUT", path, &[("content-type", "text/csv")], body)
    }

    fn put_with(&self, header: (&str, &str), body: &[u8]) -> Reply {
        self.ask("PUT", V1, &[("content-type", "text/csv"), header], body)
    }

    /// Nothing was stored: no dataset, no files.
    #[track_caller]
    fn is_untouched(&self) {
        self.get("/v1/datasets/crm").is(404);
        assert!(!self.dir.path().join("datasets/crm").exists());
        let until = Instant::now() + Duration::from_secs(5);
        while self.incoming() > 0 && Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!(self.incoming(), 0, "files left behind");
    }

    /// Unfinished files.
    fn incoming(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path().join("incoming")).expect("there");
        entries.count()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

fn snapshot(key: u8, dataset: &str, version: u64) -> Vec<u8> {
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: dataset.parse().expect("a name"),
        version,
        base: None,
        as_of: None,
    };
    let keyer = Keyer::new(&SecretKey::from_bytes([key; 32]));
    let mut builder = Builder::new(meta, keyer).expect("a full audience");
    builder
        .read_rows(&RowFormat::Csv, ROWS, &mut |_| {})
        .expect("read");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("written");
    file
}

#[test]
fn segments_of_a_dataset_are_limited() {
    let service = serve("[limits]\nsegments_per_dataset = 1\n[guards]\nenabled = false\n");
    let answer = service.put(V1, b"source,id,segments\nifa,a,vip\nifa,b,cart\n");
    let answer = answer.is(201);
    assert_eq!(
        (&answer["ids"], &answer["segments"]),
        (&1.into(), &1.into())
    );
    let reason = answer["rejected"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("more than 1 segments"), "{answer:#}");
    let refused = service.ask(
        "PUT",
        "/v1/datasets/crm/versions/2",
        &[("content-type", "application/vnd.kith.snapshot")],
        &snapshot(7, "crm", 2),
    );
    let refused = refused.is(422);
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("limits.segments_per_dataset (1)"),
        "{refused:#}"
    );
}

#[test]
fn an_upload_is_answered_with_its_report() {
    let service = serve("");
    let mut body = ROWS.to_vec();
    for n in 0..200 {
        body.extend_from_slice(format!("ifa,id-{n},vip\n").as_bytes());
    }
    body.extend_from_slice(b"ifa,null,vip\nifa,a,late\n");
    let path = format!("{V1}?as_of=2026-11-01T00:00:00%2B01:00&activate=true");
    let answer = service.put(&path, &body).is(201);
    assert_eq!(answer["dataset"], "crm");
    assert_eq!(answer["version"], 1);
    assert_eq!(answer["state"], "active");
    assert_eq!(answer["ids"], 202);
    assert_eq!(answer["rows"], 203);
    assert_eq!(answer["merged"], 1);
    assert_eq!(answer["segments"], 3);
    assert_eq!(answer["rejected"][0]["line"], 204);
    assert_eq!(answer["checks"][0]["ok"], true);
    assert_eq!(answer["as_of"], "2026-10-31T23:00:00Z");
    for measured in ["bytes", "build_seconds", "activate_seconds"] {
        assert!(answer[measured].as_f64().is_some_and(|n| n > 0.0));
    }
    // `+` and `%2B` are the same query; a repeat is the same upload.
    let path = format!("{V1}?as_of=2026-11-01T00:00:00+01:00");
    assert_eq!(service.put(&path, &body).is(200)["state"], "active");
    let listed = service.get("/v1/datasets").is(200);
    assert_eq!(listed[1]["name"], "crm");
    assert_eq!(listed[1]["live"], 1);
    assert_eq!(listed[1]["pinned"], false);
    assert_eq!(listed[1]["versions"][0]["state"], "active");
    assert_eq!(listed[1]["history"][1]["event"], "activated");
    let metrics = service.get("/metrics");
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in [
        "kith_dataset_version{dataset=\"crm\"} 1",
        "kith_dataset_as_of_seconds{dataset=\"crm\"} 1793487600",
        "kith_dataset_ids{dataset=\"crm\"} 202",
        "kith_generation 1",
        "kith_activations_total{dataset=\"crm\",result=\"activated\"} 1",
        "kith_upload_rows_total{dataset=\"crm\",result=\"rejected\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn order_and_idempotence() {
    let service = serve("");
    let other = b"source,id,segments\nifa,z,vip\n";
    service.put("/v1/datasets/crm/versions/5", ROWS).is(201);
    service.put("/v1/datasets/crm/versions/5", ROWS).is(200);
    // The same decoded body, coded otherwise.
    let path = "/v1/datasets/crm/versions/5";
    let coded = [
        ("content-type", "text/csv; charset=utf-8"),
        ("content-encoding", "gzip"),
    ];
    service.ask("PUT", path, &coded, &gzip(ROWS)).is(200);
    service.put("/v1/datasets/crm/versions/5", other).is(409);
    service
        .put("/v1/datasets/crm/versions/5?activate=false", ROWS)
        .is(409);
    service.put("/v1/datasets/crm/versions/4", other).is(409);
    service
        .put("/v1/datasets/crm/versions/6?kind=filter", other)
        .is(409);
    service.put("/v1/datasets/crm/versions/6", other).is(201);
    assert_eq!(service.state.datasets.live().load().number, 2);
}

#[test]
fn what_an_upload_is_refused_for() {
    let service = serve("[limits]\nupload_bytes = 65536\n");
    let refused = |query: &str, status| service.put(&format!("{V1}?{query}"), ROWS).is(status);
    refused("kind=identity", 422);
    refused("mode=delta&base=0", 409);
    refused("mode=delta", 422);
    refused("base=1", 422);
    refused("mode=half", 422);
    refused("kind=nothing", 422);
    refused("kind=campaigns", 422);
    refused("as_of=2099-01-01T00:00:00Z", 422);
    refused("as_of=tomorrow", 422);
    refused("activate=perhaps", 422);
    refused("activate=true&activate=true", 422);
    refused("colour=blue", 422);
    refused("source=ifa", 422);
    refused("kind=%zz", 400);
    let typed = |kind: &[(&str, &str)], status| {
        let answer = service.ask("PUT", V1, kind, ROWS).is(status);
        answer["detail"].as_str().expect("a detail").to_owned()
    };
    assert!(typed(&[], 415).contains("text/csv"));
    assert!(typed(&[("content-type", "image/png")], 415).contains("text/csv"));
    typed(&[("content-type", "application/json")], 415);
    typed(&[("content-type", "text/plain")], 422);
    let csv = ("content-type", "text/csv");
    typed(&[csv, ("content-encoding", "br")], 415);
    typed(&[csv, ("content-encoding", "gzip, gzip")], 415);
    typed(&[csv, ("content-digest", "sha-256=:short:")], 400);
    service.put(V1, b"").is(422);
    service.put(V1, b"nothing to read here\n").is(422);
    let none = service
        .put(V1, b"source,id,segments\nifa,null,vip\n")
        .is(422);
    assert_eq!(none["rejected"][0]["line"], 2);
    service.put(V1, &vec![b'x'; 65537]).is(413);
    for bad in ["%2e%2e", "a%2Fb", "a%00b", &"x".repeat(65), ""] {
        let path = format!("/v1/datasets/{bad}/versions/1");
        service.put(&path, ROWS).is(422);
    }
    for bad in ["0", "-1", "9223372036854775808", "one", "+1"] {
        let path = format!("/v1/datasets/crm/versions/{bad}");
        service.put(&path, ROWS).is(422);
    }
    service.is_untouched();
    service.put(V1, ROWS).is(201);
}

#[test]
fn content_codings() {
    let service = serve("[limits]\nupload_bytes = 1000000\n");
    // Bombs, in each coding: 64 MB of zeros in some kilobytes.
    let zeros = vec![0u8; 64 << 20];
    let bomb = gzip(&zeros);
    assert!(bomb.len() < 100_000);
    service
        .put_with(("content-encoding", "gzip"), &bomb)
        .is(413);
    let bomb = zstd::encode_all(zeros.as_slice(), 1).expect("compressed");
    service
        .put_with(("content-encoding", "zstd"), &bomb)
        .is(413);
    drop(zeros);
    // Malformed.
    let good = gzip(ROWS);
    service
        .put_with(("content-encoding", "gzip"), &good[..good.len() - 3])
        .is(400);
    service.put_with(("content-encoding", "gzip"), ROWS).is(400);
    let junk = [good.as_slice(), b"junk"].concat();
    service
        .put_with(("content-encoding", "gzip"), &junk)
        .is(400);
    let frame = zstd::encode_all(ROWS, 3).expect("compressed");
    for bad in [
        frame[..frame.len() - 1].to_vec(),
        [frame.as_slice(), frame.as_slice()].concat(),
        [frame.as_slice(), b"x"].concat(),
        [b"\x50\x2a\x4d\x18\x04\0\0\0skip".as_slice(), &frame].concat(),
        wide_window(),
    ] {
        service.put_with(("content-encoding", "zstd"), &bad).is(400);
    }
    service.is_untouched();
    // Good: two members, one frame.
    let cut = ROWS.len() / 2;
    let members = [gzip(&ROWS[..cut]), gzip(&ROWS[cut..])].concat();
    service
        .put_with(("content-encoding", "gzip"), &members)
        .is(201);
    service
        .put_with(("content-encoding", "zstd"), &frame)
        .is(200);
}

/// A frame that asks for a window of 1 GiB.
fn wide_window() -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(30).expect("set");
    encoder.write_all(&[b'a'; 1000]).expect("compressed");
    encoder.flush().expect("flushed");
    encoder.write_all(ROWS).expect("compressed");
    encoder.finish().expect("compressed")
}

#[test]
fn a_content_digest_is_checked_over_the_coded_bytes() {
    let service = serve("");
    let coded = gzip(ROWS);
    let header = |bytes: &[u8]| {
        format!(
            "sha-512=:AAAA:, sha-256=:{}:",
            STANDARD.encode(Sha256::digest(bytes))
        )
    };
    let put = |digest: &str| {
        let headers = [
            ("content-type", "text/csv"),
            ("content-encoding", "gzip"),
            ("content-digest", digest),
        ];
        service.ask("PUT", V1, &headers, &coded)
    };
    let refused = put(&header(ROWS)).is(422);
    assert_eq!(refused["expected"], STANDARD.encode(Sha256::digest(ROWS)));
    assert_eq!(refused["actual"], STANDARD.encode(Sha256::digest(&coded)));
    service.is_untouched();
    put(&header(&coded)).is(201);
}

#[test]
fn a_cut_body_leaves_nothing() {
    let service = serve("[limits]\nupload_stall_timeout_ms = 300\n");
    let start = |sent: &[u8], announced: usize| {
        let mut stream = service.connect();
        let head = format!(
            "PUT {V1} HTTP/1.1\r\nhost: kith\r\ncontent-type: text/csv\r\ncontent-length: {announced}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(sent).expect("sent");
        stream
    };
    for cut in 0..ROWS.len() {
        let mut stream = start(&ROWS[..cut], ROWS.len());
        stream.shutdown(Shutdown::Write).expect("half closed");
        read_reply(&mut stream).is(400);
    }
    // Gone altogether.
    drop(start(&ROWS[..20], ROWS.len()));
    // Silent.
    let before = Instant::now();
    read_reply(&mut start(&ROWS[..20], ROWS.len())).is(408);
    assert!(before.elapsed() >= Duration::from_millis(300));
    // A byte now and then is not progress.
    let mut trickle = start(b"s", 1 << 20);
    let mut own = trickle.try_clone().expect("cloned");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let sender = std::thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(50)).is_err() {
            if own.write_all(b"x").is_err() {
                return;
            }
        }
    });
    read_reply(&mut trickle).is(408);
    stop.send(()).expect("stopped");
    sender.join().expect("no panic");
    service.is_untouched();
}

#[test]
fn version_files_must_fit() {
    let service = serve("");
    let put = |bytes: &[u8]| {
        let kind = [("content-type", "application/vnd.kith.snapshot")];
        service.ask("PUT", V1, &kind, bytes)
    };
    let detail = |reply: Reply| reply.is(422)["detail"].as_str().expect("one").to_owned();
    assert!(detail(put(&snapshot(8, "crm", 1))).contains("--key-file"));
    assert!(detail(put(&snapshot(7, "crm", 2))).contains("version 2"));
    assert!(detail(put(&snapshot(7, "site", 1))).contains("site"));
    let not_one = detail(put(b"not one"));
    assert!(not_one.contains("kith inspect"), "{not_one}");
    assert!(!not_one.contains("incoming"), "{not_one}");
    let good = snapshot(7, "crm", 1);
    for at in (0..good.len()).step_by(97) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        put(&flipped).is(422);
    }
    put(&good[..good.len() - 1]).is(422);
    service.is_untouched();
    let answer = put(&good).is(201);
    assert_eq!(
        (&answer["state"], &answer["ids"]),
        (&json!("active"), &json!(2))
    );
    let check = answer["checks"][0]["detail"].as_str().expect("one");
    assert!(check.starts_with("not known"), "{check}");
    put(&good).is(200);
}

#[test]
fn checks_are_told_in_the_answer_and_in_the_listing() {
    let service = serve("");
    let people = |from: usize| {
        let row = |n: usize| format!("ifa,person-{n},vip\n");
        let rows: String = (from..from + 100).map(row).collect();
        format!("source,id,segments\n{rows}")
    };
    service.put(V1, people(0).as_bytes()).is(201);
    let second = "/v1/datasets/crm/versions/2";
    let held = service.put(second, people(100).as_bytes()).is(201);
    assert_eq!(held["state"], "held");
    let failed: Vec<&Value> = held["checks"]
        .as_array()
        .expect("listed")
        .iter()
        .filter(|check| check["ok"] == false)
        .collect();
    assert_eq!(failed.len(), 1, "{held:#}");
    assert_eq!(failed[0]["name"], "overlap");
    let detail = failed[0]["detail"].as_str().expect("words");
    assert!(
        detail.contains("activate this version with force"),
        "{detail}"
    );
    let listed = service.get("/v1/datasets/crm").is(200);
    assert_eq!(listed["versions"][0]["checks"], held["checks"]);
    assert_eq!(service.get(second).is(200)["checks"], held["checks"]);
}

#[test]
fn what_there_is_no_memory_for_is_507() {
    let service = serve("[guards]\nspare_memory = \"64 TiB\"\n");
    let kind = [("content-type", "application/vnd.kith.snapshot")];
    let refused = service.ask("PUT", V1, &kind, &snapshot(7, "crm", 1));
    let refused = refused.is(507);
    assert_eq!(refused["code"], "memory");
    let detail = refused["detail"].as_str().expect("words");
    assert!(detail.contains("guards.spare_memory"), "{detail}");
    service.is_untouched();
}

#[test]
fn other_formats() {
    let service = serve("");
    let typed = |path: &str, kind: &str, body: &[u8]| {
        service.ask("PUT", path, &[("content-type", kind)], body)
    };
    typed(
        "/v1/datasets/a/versions/1?source=uidapi.com&segment=vip",
        "text/plain",
        b"one\ntwo\n",
    )
    .is(201);
    typed(
        "/v1/datasets/b/versions/1",
        "application/x-ndjson",
        b"{\"source\":\"ifa\",\"id\":\"x\",\"segments\":[\"vip\"]}\n",
    )
    .is(201);
    let campaigns = "/v1/datasets/campaigns/versions/1";
    let refused = typed(
        campaigns,
        "application/json",
        b"{\"line_items\":[{\"id\":\"l1\"}]}",
    )
    .is(422);
    let errors = refused["errors"].as_array().expect("listed");
    assert!(errors.len() > 1 && errors.iter().all(|e| e["path"].is_string()));
    typed(campaigns, "application/json", b"{\"line_items\":[]}").is(201);
    typed("/v1/datasets/campaigns/versions/2", "text/csv", ROWS).is(415);
}

#[test]
fn held_forced_pinned_rolled_back_deleted() {
    let service = serve("");
    let crm = |what: &str| format!("/v1/datasets/crm/{what}");
    service.put(V1, ROWS).is(201);
    let bad = b"source,id,segments\nifa,a,vip\nifa,null,vip\n";
    let held = service.put(&crm("versions/2"), bad).is(201);
    assert_eq!(held["state"], "held");
    assert_eq!(held["checks"][0]["name"], "rejected_rows");
    assert_eq!(held["checks"][0]["ok"], false);
    service
        .post(&crm("activate"), &json!({"version": 2}))
        .is(409);
    let forced = service
        .post(&crm("activate"), &json!({"version": 2, "force": true}))
        .is(200);
    assert_eq!(
        (&forced["version"], &forced["state"]),
        (&json!(2), &json!("active"))
    );
    let back = service
        .post(&crm("activate"), &json!({"version": 1}))
        .is(200);
    assert_eq!(back["previous"], 2);
    assert_eq!(
        service.post(&crm("pin"), &json!({})).is(200)["pinned"],
        true
    );
    service.ask("POST", &crm("pin"), &[], b"").is(200);
    service.post(&crm("pin"), &json!({"version": 2})).is(409);
    let good = b"source,id,segments\nifa,q,vip\n";
    assert_eq!(
        service.put(&crm("versions/3"), good).is(201)["state"],
        "staged"
    );
    service
        .post(&crm("activate"), &json!({"version": 3}))
        .is(409);
    assert_eq!(
        service.ask("POST", &crm("unpin"), &[], b"").is(200)["pinned"],
        false
    );
    service
        .post(&crm("activate"), &json!({"version": 3}))
        .is(200);
    service
        .post(&crm("activate"), &json!({"version": 9}))
        .is(404);
    service
        .post(&crm("activate"), &json!({"number": 9}))
        .is(422);
    service
        .post("/v1/datasets/none/activate", &json!({"version": 1}))
        .is(404);
    service
        .post("/v1/datasets/campaigns/pin", &json!({}))
        .is(409);
    service.ask("DELETE", &crm("versions/3"), &[], b"").is(409);
    service.ask("DELETE", &crm("versions/2"), &[], b"").is(200);
    service.ask("DELETE", &crm("versions/2"), &[], b"").is(404);
    assert_eq!(service.get(&crm("versions/3")).is(200)["state"], "active");
    service.get(&crm("versions/2")).is(404);
}

fn with_tokens() -> Service {
    let token = |name: &str, role: &str, datasets: &str| {
        let digest = Sha256::digest(name.as_bytes());
        format!(
            "{{ name = \"{name}\", sha256 = \"{}\", datasets = [\"{datasets}\"], role = \"{role}\" }}",
            Hex(&digest)
        )
    };
    serve(&format!(
        "[admin]\ntokens = [{}, {}, {}, {}, {}]\n",
        token("reader", "read", "*"),
        token("crm-reader", "read", "crm"),
        token("crm-job", "upload", "crm"),
        token("site-job", "upload", "site"),
        token("operator", "operate", "*"),
    ))
}

#[test]
fn who_may_do_what() {
    let service = with_tokens();
    let ask = |who: &str, method: &str, path: &str, body: &[u8]| {
        let authorization = format!("Bearer {who}");
        let headers = [
            ("content-type", "text/csv"),
            ("authorization", authorization.as_str()),
        ];
        service.ask(method, path, &headers, body).status
    };
    let force = b"{\"version\":1,\"force\":true}";
    // In this order: method, path, body, then the statuses of reader, crm-reader, crm-job, site-job, operator.
    #[rustfmt::skip]
    let table: &[(&str, &str, &[u8], [u16; 5])] = &[
        ("PUT", V1, ROWS, [403, 403, 201, 403, 200]),
        ("GET", "/v1/datasets", b"", [200, 200, 200, 200, 200]),
        ("GET", "/v1/datasets/crm", b"", [200, 200, 200, 403, 200]),
        ("GET", V1, b"", [200, 200, 200, 403, 200]),
        ("POST", "/v1/datasets/crm/activate", b"{\"version\":1}", [403, 403, 200, 403, 200]),
        ("POST", "/v1/datasets/crm/activate", force, [403, 403, 403, 403, 200]),
        ("POST", "/v1/datasets/crm/pin", b"", [403, 403, 403, 403, 200]),
        ("POST", "/v1/datasets/crm/unpin", b"", [403, 403, 403, 403, 200]),
        ("DELETE", "/v1/datasets/crm/versions/9", b"", [403, 403, 403, 403, 404]),
        ("GET", "/v1/users/ifa/x", b"", [200, 403, 403, 403, 200]),
        ("POST", "/v1/explain/demo", b"{}", [200, 403, 403, 403, 200]),
        ("GET", "/metrics", b"", [200, 200, 200, 200, 200]),
    ];
    let callers = ["reader", "crm-reader", "crm-job", "site-job", "operator"];
    for (method, path, body, statuses) in table {
        for (who, status) in callers.iter().zip(statuses) {
            assert_eq!(
                ask(who, method, path, body),
                *status,
                "{who} {method} {path}"
            );
        }
        let open = *path == "/metrics";
        for nobody in ["", "unknown", "READER"] {
            let expected = if open { 200 } else { 401 };
            assert_eq!(
                ask(nobody, method, path, body),
                expected,
                "{nobody:?} {path}"
            );
        }
    }
    let refused = service.get("/v1/datasets");
    assert!(refused.head.contains("www-authenticate: bearer"));
    refused.is(401);
    let headers = [("authorization", "bearer site-job")];
    let listed = service.ask("GET", "/v1/datasets", &headers, b"").is(200);
    assert_eq!(listed, json!([]), "crm and campaigns are not its own");
    for open in ["/healthz", "/readyz", "/"] {
        assert_eq!(service.get(open).status, 200, "{open}");
    }
}

/// Budgets, delivery and switches are the campaigns': who may upload those may ask for these. Here no books are kept: 404.
#[test]
fn money_needs_a_token_for_campaigns_and_no_more() {
    let token = |name: &str, role: &str, datasets: &str| {
        let digest = Sha256::digest(name.as_bytes());
        let digest = Hex(&digest);
        format!(
            "{{ name = \"{name}\", sha256 = \"{digest}\", datasets = [\"{datasets}\"], role = \"{role}\" }}"
        )
    };
    let service = serve(&format!(
        "[admin]\ntokens = [{}, {}, {}]\n",
        token("sales", "read", "campaigns"),
        token("trader", "operate", "campaigns"),
        token("crm", "operate", "crm"),
    ));
    for (method, path, statuses) in [
        ("GET", "/v1/report", [404, 404, 403]),
        ("GET", "/v1/budgets", [404, 404, 403]),
        ("GET", "/v1/switches", [404, 404, 403]),
        ("POST", "/v1/switches", [403, 404, 403]),
        ("POST", "/v1/exposures", [403, 404, 403]),
        // A person's segments are of every dataset.
        ("GET", "/v1/users/ifa/x", [403, 403, 403]),
    ] {
        for (who, status) in ["sales", "trader", "crm"].iter().zip(statuses) {
            let authorization = format!("bearer {who}");
            let headers = [("authorization", authorization.as_str())];
            let reply = service.ask(method, path, &headers, b"");
            assert_eq!(reply.status, status, "{who} {method} {path}");
            if *who == "crm" && !path.contains("users") {
                let told = reply.is(403);
                let says = "budgets, delivery and switches are of dataset `campaigns`, which token `crm` is not for";
                let detail = told["detail"].as_str().expect("a detail");
                assert!(detail.starts_with(says), "{detail}");
            }
        }
    }
}

#[test]
fn a_client_that_still_sends_reads_why_it_is_refused() {
    let service = with_tokens();
    let chunk = vec![b'x'; 1 << 20];
    let mut stream = service.connect();
    let length = 100 * chunk.len();
    let head = format!(
        "PUT {V1} HTTP/1.1\r\nhost: kith\r\ncontent-type: text/csv\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    for _ in 0..100 {
        stream.write_all(&chunk).expect("taken in and thrown away");
    }
    read_reply(&mut stream).is(401);
    // And before it sends at all, where it asks first.
    let mut stream = service.connect();
    let head = head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let reply = read_reply(&mut stream);
    assert_eq!(reply.status, 401, "{}", reply.head);
}

#[test]
fn too_many_at_once() {
    let service = serve("[limits]\nuploads = 1\n");
    let mut first = service.connect();
    let head = format!(
        "PUT {V1} HTTP/1.1\r\nhost: kith\r\ncontent-type: text/csv\r\ncontent-length: {}\r\n\r\n",
        ROWS.len()
    );
    first.write_all(head.as_bytes()).expect("sent");
    first.write_all(&ROWS[..10]).expect("sent");
    let until = Instant::now() + Duration::from_secs(5);
    while service.incoming() == 0 {
        assert!(Instant::now() < until, "the first upload never began");
        std::thread::yield_now();
    }
    let other = "/v1/datasets/site/versions/1";
    let reply = service.put(other, ROWS);
    assert!(reply.head.contains("retry-after"), "{}", reply.head);
    reply.is(429);
    first.write_all(&ROWS[10..]).expect("sent");
    read_reply(&mut first).is(201);
    service.put(other, ROWS).is(201);
}

#[test]
fn an_asynchronous_upload_tells_where_to_look() {
    let service = serve("");
    let headers = [
        ("content-type", "text/csv"),
        ("prefer", "respond-async, wait=1"),
    ];
    let finished = |path: &str| {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let now = service.get(path).is(200);
            if now["state"] != "building" || Instant::now() > until {
                return now;
            }
        }
    };
    let reply = service.ask("PUT", V1, &headers, ROWS);
    assert!(
        reply.head.contains(&format!("location: {V1}")),
        "{}",
        reply.head
    );
    assert_eq!(reply.is(202)["state"], "building");
    assert_eq!(finished(V1)["state"], "active");
    let second = "/v1/datasets/crm/versions/2";
    service.ask("PUT", second, &headers, b"no header\n").is(202);
    let refused = finished(second);
    assert_eq!(refused["state"], "refused");
    assert_eq!(refused["problem"]["status"], 422);
    service
        .put(second, b"source,id,segments\nifa,q,vip\n")
        .is(201);
    assert_eq!(finished(second)["state"], "active");
    // Other bytes under a number that is taken: the refusal is told, beside what has the number.
    service.ask("PUT", second, &headers, ROWS).is(202);
    let refused = finished(second);
    assert_eq!(refused["state"], "refused");
    assert_eq!(refused["problem"]["status"], 409);
    assert_eq!(refused["stored"]["state"], "active");
}

#[test]
fn two_uploads_at_once_over_http() {
    let service = serve("");
    let put = |body: &'static [u8]| {
        let service = &service;
        move || service.put(V1, body).status
    };
    let other: &[u8] = b"source,id,segments\nifa,z,vip\n";
    let mut statuses = std::thread::scope(|scope| {
        let threads = [put(ROWS), put(other)].map(|p| scope.spawn(p));
        threads.map(|t| t.join().expect("no panic"))
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[test]
fn small_routes() {
    let service = serve("[limits]\nbid_body_bytes = 4096\nadmin_body_bytes = 4096\n");
    let page = service.get("/");
    assert!(String::from_utf8_lossy(&page.body).contains("/v1/datasets"));
    assert_eq!(service.get("/healthz").body, b"ok\n");
    let mut stream = service.connect();
    stream
        .write_all(b"HEAD /healthz HTTP/1.1\r\nhost: kith\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut head = String::new();
    stream.read_to_string(&mut head).expect("read");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let post = service.post("/healthz", &json!({}));
    assert!(post.head.contains("allow: get, head"));
    post.is(405);
    service.get("/v1/datasets/crm/activate").is(405);
    service.post(V1, &json!({})).is(405);
    for missing in ["/v2", "/v1/datasets/crm/x", "/V1/datasets", "/v1/datasets/"] {
        let status = service.get(missing).status;
        assert!(matches!(status, 404 | 422), "{missing}: {status}");
    }
    for later in ["/v1/users", "/v1/exposures"] {
        service.post(later, &json!({})).is(404);
    }
    service.get("/v1/report?by=line_item").is(404);
    service.ask("DELETE", "/v1/users/ifa/x", &[], b"").is(404);
    let user = service.get("/v1/users/exchange%3Ademo/a%2Fb").is(200);
    assert_eq!(user, json!({"source": "exchange:demo", "id": "a/b"}));
    assert_eq!(
        service.post("/v1/explain/demo", &json!({})).is(200)["bytes"],
        2
    );
    let coded = gzip(&[b' '; 4000]);
    let headers = [("content-encoding", "gzip")];
    let reply = service.ask("POST", "/v1/explain/demo", &headers, &coded);
    assert_eq!(reply.is(200)["bytes"], 4000);
    let coded = gzip(&[b' '; 5000]);
    service
        .ask("POST", "/v1/explain/demo", &headers, &coded)
        .is(413);
    service
        .ask("POST", "/v1/explain/demo", &[], &[b' '; 5000])
        .is(413);
    service.post("/v1/explain/other", &json!({})).is(404);
    service
        .ask("POST", "/v1/datasets/crm/activate", &[], &[b' '; 5000])
        .is(413);
}

#[test]
fn slow_headers_are_cut_and_shutdown_ends() {
    let service = serve("[limits]\nheader_timeout_ms = 200\ndrain_timeout_ms = 2000\n");
    let mut slow = service.connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").expect("sent");
    slow.set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    service.put(V1, ROWS).is(201);
    let address = service.server.address();
    let before = Instant::now();
    service.server.shutdown();
    assert!(before.elapsed() < Duration::from_secs(5));
    TcpStream::connect(address).expect_err("nobody listens");
}

#[test]
fn who_never_reads_gives_the_place_back() {
    let service = serve("[limits]\nadmin_connections = 1\nwrite_timeout_ms = 300\n");
    let mut deaf = service.connect();
    deaf.set_write_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let asked = b"GET /metrics HTTP/1.1\r\nhost: kith\r\n\r\n".repeat(1000);
    let before = Instant::now();
    while deaf.write_all(&asked).is_ok() {
        assert!(before.elapsed() < Duration::from_secs(10), "never cut");
    }
    assert!(before.elapsed() < Duration::from_secs(9), "cut, not stuck");
    assert_eq!(
        service.get("/healthz").status,
        200,
        "the only place is free"
    );
}

#[test]
fn what_is_too_long_names_its_limit() {
    let service = serve(
        "[limits]\nupload_bytes = 65536\ncampaigns_bytes = 70000\n[datasets.small]\nmax_bytes = 5000\n",
    );
    let check = |dataset: &str, kind: &str, bytes: usize, limit: &str| {
        let body = vec![b'x'; bytes];
        let path = format!("/v1/datasets/{dataset}/versions/1");
        let plain = [("content-type", kind)];
        let coded = [("content-type", kind), ("content-encoding", "gzip")];
        for reply in [
            service.ask("PUT", &path, &plain, &body),
            service.ask("PUT", &path, &coded, &gzip(&body)),
        ] {
            let answer = reply.is(413);
            let detail = answer["detail"].as_str().expect("one");
            assert!(detail.contains(limit), "{detail}");
        }
    };
    check("crm", "text/csv", 65537, "limits.upload_bytes");
    check("small", "text/csv", 5001, "max_bytes of [datasets.small]");
    check(
        "campaigns",
        "application/json",
        70001,
        "limits.campaigns_bytes",
    );
}

#[test]
fn what_the_disk_says_names_no_path() {
    let refused = |kind| {
        let source = std::io::Error::from(kind);
        let path = "incoming/2.part".to_owned();
        let error: std::io::Error = crate::storage::StorageError::Io { path, source }.into();
        Problem::from(crate::datasets::Refused::from(error)).to_json()
    };
    let full = refused(std::io::ErrorKind::StorageFull);
    assert_eq!(full["status"], 507);
    let failed = refused(std::io::ErrorKind::Other);
    assert_eq!(failed["status"], 503);
    for (problem, says) in [
        (full, "is full; delete versions"),
        (failed, "check the disk"),
    ] {
        let detail = problem["detail"].as_str().expect("one");
        assert!(detail.contains(says), "{detail}");
        assert!(!detail.contains("incoming"), "{detail}");
    }
}

#[test]
fn uploads_to_one_dataset_leave_places_to_others() {
    let service = serve("[limits]\nuploads = 4\n");
    let begin = || {
        let mut stream = service.connect();
        let head = format!(
            "PUT {V1} HTTP/1.1\r\nhost: kith\r\ncontent-type: text/csv\r\ncontent-length: {}\r\n\r\n",
            ROWS.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream
    };
    let mut under_way = [begin(), begin()];
    let until = Instant::now() + Duration::from_secs(5);
    while service.incoming() < 2 {
        assert!(Instant::now() < until, "they never began");
        std::thread::yield_now();
    }
    let third = service.put(V1, ROWS).is(429);
    assert!(third["detail"].as_str().expect("one").contains("`crm`"));
    service.put("/v1/datasets/site/versions/1", ROWS).is(201);
    for stream in &mut under_way {
        stream.write_all(ROWS).expect("sent");
        assert!(read_reply(stream).status < 300);
    }
    service.put(V1, ROWS).is(200);
}

#[test]
fn an_upload_that_stays_slow_is_cut() {
    let service = serve("[limits]\nupload_stall_timeout_ms = 300\n");
    let mut slow = service.connect();
    let head = format!(
        "PUT {V1} HTTP/1.1\r\nhost: kith\r\ncontent-type: text/csv\r\ncontent-length: 1000000\r\n\r\n"
    );
    slow.write_all(head.as_bytes()).expect("sent");
    let mut own = slow.try_clone().expect("cloned");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let sender = std::thread::spawn(move || {
        // 20 KiB a second: never silent for long, and too slow all the same.
        while stopped.recv_timeout(Duration::from_millis(200)).is_err() {
            if own.write_all(&[b'x'; 4 << 10]).is_err() {
                return;
            }
        }
    });
    read_reply(&mut slow).is(408);
    let _ = stop.send(());
    sender.join().expect("no panic");
    service.is_untouched();
}

#[test]
fn an_idle_connection_is_kept_for_the_idle_timeout() {
    let service = serve("[limits]\nheader_timeout_ms = 200\nidle_timeout_ms = 1500\n");
    let mut stream = service.connect();
    let (_never, wait) = std::sync::mpsc::channel::<()>();
    for _ in 0..3 {
        let asked = b"GET /healthz HTTP/1.1\r\nhost: kith\r\n\r\n";
        stream.write_all(asked).expect("still open");
        assert_eq!(read_reply(&mut stream).status, 200);
        let _ = wait.recv_timeout(Duration::from_millis(600));
    }
    // A head that is begun must end, on a connection used before too.
    let before = Instant::now();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\n")
        .expect("sent");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(before.elapsed() < Duration::from_millis(1200), "cut late");
    let mut idle = service.connect();
    let before = Instant::now();
    let _ = idle.read_to_end(&mut rest);
    assert!(before.elapsed() >= Duration::from_millis(1000), "cut early");
}
