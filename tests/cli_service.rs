//! The `kith` command against a running service: what the two say to each other is understood.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use kith::config::Config;
use kith::service::Service;
use serde_json::Value;

fn config(dir: &Path) -> Config {
    let toml = format!(
        "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {:?}\n",
        dir.join("data").display().to_string()
    );
    Config::from_toml(&toml, "test").expect("a configuration")
}

fn start(dir: &Path) -> Service {
    Service::start(config(dir)).expect("a service")
}

/// Runs the command in the folder of fixtures; `{dir}` in an argument is the test's own folder.
fn kith(service: &Service, dir: &Path, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kith"))
        .args(
            args.split(' ')
                .map(|arg| arg.replace("{dir}", &dir.display().to_string())),
        )
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"))
        .env("KITH_ADMIN_URL", format!("http://{}", service.admin_addr()))
        .output()
        .expect("kith ran")
}

#[track_caller]
fn ends(output: &Output, code: i32, told: &str) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    assert!(
        format!("{out}{err}").contains(told),
        "wanted {told:?} in\n{out}{err}"
    );
    out
}

#[test]
fn from_rows_to_an_explained_bid() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let service = start(dir);
    let kith = |args: &str| kith(&service, dir, args);

    ends(
        &kith("upload --dataset crm crm.csv"),
        0,
        "crm version 1: active",
    );
    let again = "upload --dataset crm --version 1 crm.csv";
    ends(&kith(again), 0, "was so before");
    let zstd = zstd::encode_all(&include_bytes!("../fixtures/site.ndjson")[..], 3).expect("packed");
    std::fs::write(dir.join("site.ndjson.zst"), zstd).expect("written");
    ends(
        &kith("upload --dataset site {dir}/site.ndjson.zst"),
        0,
        "site version 1: active",
    );

    // Built offline under the service's key, staged only.
    let build = "build --dataset crm --version 2 --key-file {dir}/data/key --input crm.csv --output {dir}/crm.kith";
    ends(&kith(build), 0, "crm version 2");
    let staged = ends(
        &kith("upload --dataset crm --stage-only {dir}/crm.kith"),
        0,
        "crm version 2: staged",
    );
    assert!(
        staged.contains("built in") && !staged.contains("activated"),
        "{staged}"
    );

    let known = ends(&kith("lookup buyeruid u-0001"), 0, "crm/vip");
    assert!(
        known.contains("never") && !known.contains("u-0001"),
        "{known}"
    );
    ends(&kith("lookup buyeruid u-none"), 0, "not known");
    ends(
        &kith("lookup ifa 00000000-0000-0000-0000-000000000000"),
        0,
        "never looked up",
    );

    ends(
        &kith("upload --dataset campaigns campaigns.json"),
        0,
        "campaigns version 1: active",
    );
    let request = include_str!("../fixtures/requests.jsonl")
        .lines()
        .next()
        .expect("a request");
    std::fs::write(dir.join("request.json"), request).expect("written");
    let told = ends(&kith("explain demo {dir}/request.json"), 0, "crm/vip");
    assert!(told.starts_with("decision    bid\n"), "{told}");
    let told = ends(&kith("explain demo {dir}/request.json --json"), 0, "");
    let document: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(document["decision"], "bid");
    ends(
        &kith("explain nobody {dir}/request.json"),
        1,
        "there is no exchange",
    );
    ends(&kith("explain demo crm.csv"), 1, "error: ");
    service.drain();
}

#[test]
fn refused_and_held() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let service = start(dir);
    let kith = |args: &str| kith(&service, dir, args);

    std::fs::write(
        dir.join("bad.csv"),
        "source,id,segments\nifa,a-1,vip\nifa,,vip\n",
    )
    .expect("written");
    let held = ends(&kith("upload --dataset crm {dir}/bad.csv"), 1, "is held");
    assert!(
        held.contains("FAILED") && held.contains("line 3: "),
        "{held}"
    );
    ends(
        &kith("upload --dataset crm --version 1 crm.csv"),
        1,
        "(409)",
    );

    std::fs::write(dir.join("none.csv"), "source,id,segments\nifa,,vip\n").expect("written");
    ends(&kith("upload --dataset crm {dir}/none.csv"), 1, "line 2: ");
    std::fs::write(dir.join("bad.json"), r#"{"line_items":[{"id":"a"}]}"#).expect("written");
    ends(
        &kith("upload --dataset campaigns {dir}/bad.json"),
        1,
        "line_items[0]",
    );

    // A file under a key that is not the service's.
    let build = "build --dataset crm --version 9 --key-file {dir}/key --input crm.csv --output {dir}/crm.kith";
    ends(&kith(build), 1, "key is not there");
    let key = dir.join("key");
    std::fs::write(&key, "5a".repeat(32)).expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    ends(&kith(build), 0, "");
    ends(
        &kith("upload --dataset crm --version 9 {dir}/crm.kith"),
        1,
        "key",
    );
    service.drain();
}

/// Parallel packers begin with a skippable frame and make many; `--long=27` has a window of 128 MiB.
#[test]
fn zstd_of_any_make_is_taken() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let service = start(dir);
    let rows = format!("source,id,segments\n{}", "ifa,a-1,vip\n".repeat(1_000));
    let packed = |part: &str| zstd::encode_all(part.as_bytes(), 1).expect("packed");
    let (first, second) = rows.split_at(rows.len() / 2);
    let many = [
        &b"\x50\x2a\x4d\x18\x04\0\0\0size"[..],
        &packed(first),
        &packed(second),
    ]
    .concat();
    let mut long = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    long.window_log(27).expect("set");
    long.write_all(rows.as_bytes()).expect("packed");
    let long = long.finish().expect("packed");
    for (version, bytes) in [(1, many), (2, long)] {
        std::fs::write(dir.join("a.csv.zst"), bytes).expect("written");
        let upload = format!("upload --dataset crm --version {version} {{dir}}/a.csv.zst");
        ends(&kith(&service, dir, &upload), 0, "1,000");
    }
    service.drain();
}

/// With a new key every id would be looked up in vain, and nobody would know why.
#[test]
fn a_lost_key_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let service = start(dir);
    std::fs::write(dir.join("a.csv"), "source,id,segments\nifa,a,vip\n").expect("written");
    ends(
        &kith(&service, dir, "upload --dataset crm {dir}/a.csv"),
        0,
        "",
    );
    service.drain();
    let key = dir.join("data/key");
    std::fs::rename(&key, dir.join("kept")).expect("moved");
    let refused = Service::start(config(dir)).expect_err("no key");
    assert!(refused.to_string().contains("restore it"), "{refused}");
    assert!(!key.exists());
    std::fs::rename(dir.join("kept"), &key).expect("moved");
    start(dir).drain();
}

/// Long enough to be asked about before it is sent, and refused then.
#[test]
fn a_refusal_comes_before_the_bytes_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let service = start(dir);
    let rows = format!("source,id,segments\n{}", "ifa,a-1,vip\n".repeat(1_000_000));
    std::fs::write(dir.join("long.csv"), rows).expect("written");
    let refused = kith(
        &service,
        dir,
        "upload --dataset campaigns --version 1 {dir}/long.csv",
    );
    ends(&refused, 1, "error: ");
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("closed the connection"));
    service.drain();
}
