//! `scripts/overload`, tiny: that the script works, and that the report has what it tells of. Not the figures: the machine
//! may be busy, and the program is not optimised.

#![expect(clippy::print_stderr, reason = "a test says why it did nothing")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn the_script_works() {
    let programs = Path::new(env!("CARGO_BIN_EXE_loadtest"))
        .parent()
        .expect("a folder");
    // Of another package: there when the workspace is built, as `scripts/test` does.
    if !programs.join("kith").exists() {
        eprintln!("left out: kith is not built beside loadtest");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let output = Command::new(root.join("scripts/overload"))
        .args(["--tiny", "--json", "--bin"])
        .arg(programs)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.trim_end().ends_with("ok"), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["connections_closed"], 0, "{told}");
    let phases = report["phases"].as_array().expect("phases");
    let names: Vec<_> = phases.iter().map(|phase| &phase["phase"]).collect();
    assert_eq!(names, ["calm", "overload", "after"]);
    for phase in phases {
        let urls = phase["urls"].as_array().expect("both exchanges");
        assert_eq!(urls.len(), 2, "{told}");
        for figures in urls.iter().chain([phase]) {
            assert!(figures["due"].as_u64() > Some(0), "{figures}");
            for count in ["bids", "no_bids", "errors", "unsent"] {
                assert!(figures[count].is_u64(), "{count}: {figures}");
            }
            assert!(figures["goodput_share"].is_f64(), "{figures}");
        }
    }
    let bids = phases.iter().filter_map(|phase| phase["bids"].as_u64());
    assert!(bids.sum::<u64>() > 0, "{told}");
    assert!(report.get("recovered_ms").is_some(), "{told}");
}
