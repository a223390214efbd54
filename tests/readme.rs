//! The README's table of configuration keys is the one that the code gives.
//!
//! `UPDATE_README=1 cargo test --test readme` writes it.

use std::path::Path;

const BEGIN: &str =
    "<!-- keys: written by UPDATE_README=1 cargo test --test readme; do not edit -->\n";
const END: &str = "<!-- end of keys -->\n";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a switch for whoever runs the test"
)]
fn the_table_of_keys_is_the_code_s_own() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).expect("a README");
    let (before, rest) = readme
        .split_once(BEGIN)
        .expect("the marker before the table");
    let (found, after) = rest.split_once(END).expect("the marker after the table");
    let expected = kith::config::table();
    if std::env::var_os("UPDATE_README").is_some() {
        let whole = format!("{before}{BEGIN}{expected}{END}{after}");
        std::fs::write(&path, whole).expect("the README written");
        return;
    }
    let stale = expected
        .lines()
        .zip(found.lines().chain(std::iter::repeat("")))
        .find(|(expected, found)| expected != found);
    assert!(
        found == expected,
        "README.md's table of keys is not the code's; first difference: {stale:#?}\nwrite it with: \
         UPDATE_README=1 cargo test --test readme"
    );
}
