use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::audience::Errors;
use crate::ids::Kind;
use crate::money::{Currency, Price, Round};
use crate::privacy::{GdprWhenAbsent, Policy, Purposes};

fn none() -> Vec<(String, String)> {
    Vec::new()
}

fn read(text: &str) -> Config {
    Config::from_toml(text, "kith.toml").unwrap_or_else(|e| panic!("{e}"))
}

/// The complaint about `text`, which must be one line.
fn complaint(text: &str) -> String {
    let all = Config::from_toml(text, "kith.toml").expect_err("refused");
    let all = all.to_string();
    assert_eq!(all.lines().count(), 1, "{all}");
    all
}

fn check(text: &str, expect: &str) {
    assert_eq!(complaint(text), format!("kith.toml:{expect}"));
}

fn with_env(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env: Vec<(String, String)> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::read(text, "kith.toml", &env)
}

#[test]
fn nothing_configured_is_safe_and_has_one_exchange() {
    let config = Config::default();
    assert_eq!(config, read(""));
    assert_eq!(config, Config::load(None, &none).expect("defaults"));
    assert_eq!(config.bid.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9090");
    assert!(config.bid.thread_count() >= 1);
    assert_eq!(config.data.key_file, Path::new("./data/key"));
    let names: Vec<&str> = config.exchanges.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["demo"]);
    let demo = config.exchanges.get("demo").expect("there");
    assert_eq!(
        (demo.index, demo.default_tmax_ms, demo.margin_ms),
        (0, 100, 10)
    );
    assert_eq!(
        (demo.no_bid, demo.billing),
        (NoBidForm::Status204, Billing::Burl)
    );
    assert_eq!(demo.seat, "kith");
    let campaigns = config.datasets.get(CAMPAIGNS).expect("always");
    assert_eq!(campaigns.kind, Kind::Campaigns);
    let other = config
        .datasets
        .get_or_default(&"any".parse().expect("a name"));
    assert_eq!(
        (other.kind, &*other.purposes),
        (Kind::Audience, &[1, 3, 4][..])
    );
    assert_eq!(config.limits.bid_body_bytes, 1 << 20);
    assert_eq!(config.limits.upload_bytes, 16 << 30);
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
}

#[test]
fn the_contract_s_example_is_read() {
    let config = read(include_str!("../../fixtures/kith.toml"));
    let token = config.admin.tokens.first().expect("one");
    assert_eq!((token.name.as_str(), token.role), ("crm-job", Role::Upload));
    assert!(token.datasets.include("crm") && !token.datasets.include("site"));
    assert!(
        Role::Operate > Role::Upload && Role::Upload > Role::Read,
        "roles grow"
    );
    assert_eq!(
        config.bid.public_url.as_deref(),
        Some("https://bid.example")
    );
    assert_eq!(config.bid.threads, 2);
    assert_eq!(config.data.key_file, Path::new("/run/secrets/kith"));
    let names: Vec<&str> = config.exchanges.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["Beta", "alpha"], "by name, byte-wise");
    for (index, exchange) in config.exchanges.iter().enumerate() {
        assert_eq!(exchange.index, index);
        assert_eq!(config.exchanges.by_index(index), Some(exchange));
        assert_eq!(config.exchanges.get(exchange.name.as_str()), Some(exchange));
    }
    let alpha = config.exchanges.get("alpha").expect("there");
    let admits = |ip: &str| alpha.admits(ip.parse().expect("an address"));
    assert!(admits("203.0.113.9") && admits("::ffff:203.0.113.9") && admits("198.51.100.7"));
    assert!(!admits("203.0.114.9") && !admits("198.51.100.8") && !admits("::1"));
    assert_eq!(alpha.currency.as_str(), "EUR");
    assert_eq!(alpha.path_key_sha256, Some([0xab; 32]));
    assert_eq!(alpha.billing_window, Duration::from_secs(6 * 3600));
    let beta = config.exchanges.get("Beta").expect("there");
    assert_eq!(beta.billing_window, Duration::from_secs(1800), "inherited");
    assert!(config.exchanges.get("beta").is_none());
    let crm = config.datasets.get("crm").expect("there");
    assert_eq!(
        (&*crm.purposes, crm.max_bytes),
        (&[1, 3][..], Some(2 << 30))
    );
    assert_eq!(
        (crm.guards.enabled, crm.guards.max_rejected_share),
        (true, 0.5)
    );
    assert_eq!(config.guards.max_rejected_share, 0.02);
    let of_all = (config.guards.max_ids_gained, config.guards.max_age);
    assert_eq!(of_all, (2.5, Some(Duration::from_secs(3 * 86_400))));
    assert_eq!(crm.guards.max_age, None, "taken back");
    let inherited = (crm.guards.max_ids_gained, crm.guards.spare_memory);
    assert_eq!(inherited, (2.5, 1 << 30));
    let one_usd = Price::parse("1", Round::Down).expect("a price");
    let eur = "EUR".parse().expect("a code");
    let in_eur = config
        .currency
        .rates
        .convert(one_usd, Currency::USD, eur, Round::Down);
    assert_eq!(in_eur, Price::parse("0.92", Round::Down));
    let policy = config.privacy.policy();
    assert_eq!(
        (policy.gdpr_when_absent, policy.honor_dnt),
        (GdprWhenAbsent::Applies, false)
    );
    assert_eq!((policy.vendor_id, policy.tcf_strict), (4242, false));
    assert_eq!(Config::default().privacy.policy(), Policy::default());
    assert_eq!(config.limits.uploads, 2);
    let warned = config.warnings().join("\n");
    assert!(warned.contains("[web] listen"), "{warned}");
}

#[test]
fn a_wrong_key_is_refused_with_its_line_and_the_nearest_right_one() {
    check(
        "\n[bid]\nlisen = \"127.0.0.1:1\"",
        "3: unknown key \"lisen\" in [bid]; did you mean \"listen\"?",
    );
    check(
        "[exchange.demo]\ncurrency = \"EUR\"",
        "1: unknown section [exchange]; did you mean [exchanges]?",
    );
    check(
        "[exchanges.a]\n\n  curency = \"EUR\"",
        "3: unknown key \"curency\" in [exchanges.a]; did you mean \"currency\"?",
    );
    check(
        "[datasets.a.guards]\nenabeld = true",
        "2: unknown key \"enabeld\" in [datasets.a.guards]; did you mean \"enabled\"?",
    );
    check(
        "[bid]\nzzz = 1",
        "2: unknown key \"zzz\" in [bid]; it has listen, public_url, threads",
    );
    check(
        "listen = 1",
        "1: unknown section [listen]; it has bid, admin, data, budget, exchanges, guards, shadow, datasets, privacy, people, currency, limits, web",
    );
}

#[test]
fn what_is_done_now_and_then_can_be_never() {
    let every = |text: &str| {
        let config = Config::from_toml(&format!("[data]\n{text}"), "test");
        config.expect("good").data.scrub_every
    };
    assert_eq!(every(""), Some(Duration::from_secs(86_400)));
    assert_eq!(
        every("scrub_every = \"2h\""),
        Some(Duration::from_secs(7200))
    );
    for never in ["scrub_every = 0", "scrub_every = \"0\""] {
        assert_eq!(every(never), None, "{never}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_line_and_what_is_wanted() {
    for (text, expect) in [
        (
            "[bid]\n\nlisten = \"abc\"",
            "3: [bid] listen: \"abc\" is not an address like 127.0.0.1:8080",
        ),
        (
            "[bid]\nlisten = 8080",
            "2: [bid] listen: 8080 is not an address like 127.0.0.1:8080",
        ),
        ("bid = 3", "1: [bid]: 3 is not a section of keys"),
        (
            "[bid]\nthreads = -1",
            "2: [bid] threads: -1 is not a whole number from 0 to 1024",
        ),
        (
            "[bid]\nthreads = 1.5",
            "2: [bid] threads: 1.5 is not a whole number from 0 to 1024",
        ),
        (
            "[bid]\nthreads = 99999999999999999999",
            "2: [bid] threads: 99999999999999999999 is not a whole number from 0 to 1024",
        ),
        (
            "[bid]\nthreads = 2026-01-01",
            "2: [bid] threads: 2026-01-01 is not a whole number from 0 to 1024",
        ),
        (
            "[bid]\npublic_url = \"https://a.example/?x\"",
            "2: [bid] public_url: \"https://a.example/?x\" is not a URL that begins with http:// or https://, without query or fragment",
        ),
        (
            "[data]\nkeep_versions = 0",
            "2: [data] keep_versions: 0 is not a whole number from 1 to 1000",
        ),
        ("[data]\ndir = \"\"", "2: [data] dir: \"\" is not a path"),
        (
            "[exchanges.a]\nbilling = \"brul\"",
            "2: [exchanges.a] billing: \"brul\" is not one of \"burl\", \"nurl\", \"impression\"; did you mean \"burl\"?",
        ),
        (
            "[exchanges.a]\nno_bid = 204",
            "2: [exchanges.a] no_bid: 204 is not one of \"204\", \"reason\"",
        ),
        (
            "[exchanges.a]\ncurrency = \"EURO\"",
            "2: [exchanges.a] currency: \"EURO\" is not a currency code of three letters, like EUR",
        ),
        (
            "[exchanges.a]\nallow = [\n \"10.0.0.0/8\",\n \"10.0.0.0/40\"]",
            "4: [exchanges.a] allow: \"10.0.0.0/40\" is not a network like 203.0.113.0/24 or a single address",
        ),
        (
            "[exchanges.a]\nallow = \"10.0.0.1\"",
            "2: [exchanges.a] allow: \"10.0.0.1\" is not a list of networks like \"203.0.113.0/24\" or single addresses",
        ),
        (
            "[exchanges.a]\nmargin_ms = 100",
            "2: [exchanges.a] margin_ms: leaves nothing of default_tmax_ms (100); every request without tmax would be a no-bid",
        ),
        (
            "[exchanges.\"a b\"]",
            "1: [exchanges] \"a b\": a name is 1 to 64 of a-z A-Z 0-9 . _ - (and not . or ..)",
        ),
        (
            "[exchanges]\na = 1",
            "2: [exchanges.a]: 1 is not a section of keys",
        ),
        (
            "[exchanges.Demo]\n[exchanges.demo]",
            "2: [exchanges.demo] another exchange's name differs only in case; their users could not be told apart",
        ),
        (
            "[datasets.a]\npurposes = [1, 25]",
            "2: [datasets.a] purposes: 25 is not a whole number from 1 to 24",
        ),
        (
            "[datasets.a]\npurposes = []",
            "2: [datasets.a] purposes: name at least one purpose, such as 1 for data that is only read",
        ),
        (
            "[datasets.a]\nkind = \"audiense\"",
            "2: [datasets.a] kind: \"audiense\" is not one of \"audience\", \"filter\", \"identity\", \"campaigns\", \"scores\"; did you mean \"audience\"?",
        ),
        (
            "[datasets.a]\nfalse_positive_rate = 0.2",
            "2: [datasets.a] false_positive_rate: 0.2 is not a share from 0.0001 to 0.1, like 0.01",
        ),
        (
            "[datasets.a]\nerrors = \"wrongly_exclude\"",
            "2: [datasets.a] errors: \"wrongly_exclude\" is not one of \"wrongly_included\", \"wrongly_excluded\"; did you mean \"wrongly_excluded\"?",
        ),
        (
            "[datasets.a]\nkind = \"filter\"\nconfirm = \"b\"\n[datasets.b]\nkind = \"filter\"",
            "1: [datasets] a: confirm: b is of kind filter, and only a dataset of kind audience can confirm",
        ),
        (
            "[datasets.a]\nkind = \"filter\"\nconfirm = \"a\"",
            "1: [datasets] a: confirm: a is of kind filter, and only a dataset of kind audience can confirm",
        ),
        (
            "[datasets.a]\nkind = \"filter\"\nconfirm = \"campaigns\"",
            "1: [datasets] a: confirm: campaigns is of kind campaigns, and only a dataset of kind audience can confirm",
        ),
        (
            "[datasets.a]\nkind = \"campaigns\"",
            "2: [datasets.a] kind: only the dataset campaigns is of kind campaigns; give another kind",
        ),
        (
            "[datasets.campaigns]\nkind = \"audience\"",
            "2: [datasets.campaigns] kind: the dataset campaigns is always of kind campaigns, not audience",
        ),
        (
            "[guards]\nmax_rejected_share = 1.01",
            "2: [guards] max_rejected_share: 1.01 is not a share from 0 to 1, like 0.01",
        ),
        (
            "[guards]\nmax_rejected_share = nan",
            "2: [guards] max_rejected_share: NaN is not a share from 0 to 1, like 0.01",
        ),
        (
            "[guards]\nmax_ids_gained = 1001",
            "2: [guards] max_ids_gained: 1001 is not a number from 0 to 1000, 1 being as much again",
        ),
        (
            "[guards]\nmin_overlap = -0.1",
            "2: [guards] min_overlap: -0.1 is not a share from 0 to 1, like 0.01",
        ),
        (
            "[guards]\nmax_age = \"0d\"",
            "2: [guards] max_age: \"0d\" is not a length of time over 0, like \"90s\", \"30m\", \"1h\" or \"7d\"",
        ),
        (
            "[guards]\nspare_memory = \"a lot\"",
            "2: [guards] spare_memory: \"a lot\" is not a size from 0 to 64 TiB, in bytes or like \"16 MiB\"",
        ),
        (
            "[guards]\nlarge_segment_share = 0.95\n[datasets.a]",
            "2: [guards] large_segment_share: 0.95 is not below max_segment_share (0.9): a segment is large before it has nearly everyone",
        ),
        (
            "[datasets.a.guards]\nmax_segment_share = 0.1",
            "1: [datasets.a.guards] large_segment_share: 0.1 is not below max_segment_share (0.1): a segment is large before it has nearly everyone",
        ),
        (
            "[guards]\nenabled = \"yes\"",
            "2: [guards] enabled: \"yes\" is not true or false",
        ),
        (
            "[privacy]\ngdpr_when_absent = \"by-country\"",
            "2: [privacy] gdpr_when_absent: \"by-country\" is not one of \"by_country\", \"applies\", \"not\"; did you mean \"by_country\"?",
        ),
        (
            "[privacy]\nvendor_id = 65536",
            "2: [privacy] vendor_id: 65536 is not a whole number from 0 to 65535",
        ),
        (
            "[budget]\nbilling_window = \"1 fortnight\"",
            "2: [budget] billing_window: \"1 fortnight\" is not a length of time over 0, like \"90s\", \"30m\", \"1h\" or \"7d\"",
        ),
        (
            "[budget]\nbilling_window = \"99999999999999999999d\"",
            "2: [budget] billing_window: \"99999999999999999999d\" is not a length of time over 0, like \"90s\", \"30m\", \"1h\" or \"7d\"",
        ),
        (
            "[currency]\nrates = { EUR = 0 }",
            "2: [currency] rates: 0 is not a rate of EUR from 0.000001 to 1000000",
        ),
        (
            "[currency.rates]\nEUR = 1.1\neur = 1.1",
            "3: [currency] rates: EUR has two rates",
        ),
        (
            "[currency.rates]\nEURO = 1.1",
            "2: [currency] rates: \"EURO\": a currency is an ISO 4217 code of three letters, like EUR",
        ),
        (
            "[currency]\nrates = { USD = 2 }",
            "2: [currency] rates: USD is the base: its rate is 1",
        ),
        (
            "[limits]\nuploads = 0",
            "2: [limits] uploads: 0 is not a whole number from 1 to 1024",
        ),
        (
            "[limits]\nids_per_request = 65",
            "2: [limits] ids_per_request: 65 is not a whole number from 1 to 64",
        ),
        (
            "[limits]\nbid_body_bytes = \"1 MB\"",
            "2: [limits] bid_body_bytes: \"1 MB\" is not a size from 1 KiB to 64 MiB, in bytes or like \"16 MiB\"",
        ),
        (
            "[limits]\ndatasets = 1\n[datasets.a]",
            "2: [limits] datasets: 2 are configured (campaigns among them), more than 1",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:8080\"",
            "2: [admin] listen: 127.0.0.1:8080 is the bid listener's address",
        ),
        ("[bid\n", "1: unclosed table, expected `]`"),
        ("[bid]\nthreads = 1\nthreads = 2", "3: duplicate key"),
    ] {
        check(text, expect);
    }
}

#[test]
fn every_problem_is_told_at_once_in_the_file_s_order() {
    let text = "[web]\nx = 1\n[bid]\nlisten = 1\n[limits]\nuploads = 0\n";
    let error = with_env(text, &[("KITH__DATA__DIR", "")]).expect_err("refused");
    let told = error.to_string();
    let places: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once(": ").map(|(place, _)| place))
        .collect();
    assert_eq!(
        places,
        [
            "kith.toml:2",
            "kith.toml:4",
            "kith.toml:6",
            "KITH__DATA__DIR"
        ]
    );
}

#[test]
fn admin_without_tokens_is_held_to_this_machine() {
    for listen in ["0.0.0.0:9090", "192.0.2.1:9090", "[::]:9090"] {
        let told = complaint(&format!("[admin]\nlisten = \"{listen}\""));
        assert!(told.starts_with("kith.toml:2: [admin] listen:"), "{told}");
        assert!(told.contains("add a token"), "{told}");
    }
    for listen in [
        "127.0.0.1:9",
        "127.9.9.9:9",
        "[::1]:9",
        "[::ffff:127.0.0.1]:9",
    ] {
        read(&format!("[admin]\nlisten = \"{listen}\""));
    }
    let token = format!(
        "{{ name = \"a\", sha256 = \"{}\", datasets = [\"*\"] }}",
        "ab".repeat(32)
    );
    let open = read(&format!(
        "[admin]\nlisten = \"0.0.0.0:9090\"\ntokens = [{token}]"
    ));
    let token = open.admin.tokens.first().expect("one");
    assert_eq!(
        (token.role, &token.datasets),
        (Role::Read, &TokenDatasets::All)
    );
}

#[test]
fn a_token_s_mistakes_are_told_without_showing_the_token() {
    let token = |fields: &str| format!("[[admin.tokens]]\n{fields}");
    let good = "ab".repeat(32);
    let told = complaint(&token(
        "name = \"a\"\nsha256 = \"hunter2\"\ndatasets = \"*\"",
    ));
    assert!(!told.contains("hunter2"), "{told}");
    assert!(
        told.starts_with("kith.toml:3: [admin.tokens[]] sha256: "),
        "{told}"
    );
    assert!(told.contains("sha256sum"), "{told}");
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let told = complaint(&token(&format!(
        "name = \"a\"\nsha256 = \"{nothing}\"\ndatasets = \"*\""
    )));
    assert!(told.contains("the secret was empty"), "{told}");
    check(
        &token(&format!("sha256 = \"{good}\"\ndatasets = \"*\"")),
        "1: [admin.tokens[]] needs the key \"name\": text of 1 to 64 bytes",
    );
    check(
        &token(&format!(
            "name = \"a\"\nsha256 = \"{good}\"\ndatasets = [\"a b\"]"
        )),
        "4: [admin.tokens[]] datasets: \"a b\" is not a name of 1 to 64 of a-z A-Z 0-9 . _ -",
    );
    check(
        &token(&format!(
            "name = \"a\"\nsha256 = \"{good}\"\ndatasets = \"*\"\nrole = \"admin\""
        )),
        "5: [admin.tokens[]] role: \"admin\" is not one of \"read\", \"upload\", \"operate\"",
    );
    let one = |name: &str, digest: &str| {
        format!("[[admin.tokens]]\nname = \"{name}\"\nsha256 = \"{digest}\"\ndatasets = \"*\"\n")
    };
    let same_name = one("a", &good) + &one("a", &"cd".repeat(32));
    assert!(complaint(&same_name).contains("two are named \"a\""));
    let same_token = one("a", &good) + &one("b", &good);
    assert!(complaint(&same_token).contains("the same sha256"));
    check(
        "[admin]\ntokens = 3",
        "2: [admin] tokens: 3 is not a list of tables",
    );
}

#[test]
fn the_environment_is_laid_over_the_file() {
    let env = [
        ("KITH__BID__LISTEN", "127.0.0.1:7000"),
        ("KITH__bid__Threads", "3"),
        ("KITH__EXCHANGES__DEMO__CURRENCY", "eur"),
        ("KITH__EXCHANGES__DEMO__NO_BID", "204"),
        ("KITH__EXCHANGES__DEMO__ALLOW", "[\"10.0.0.0/8\"]"),
        ("KITH__CURRENCY__RATES__EUR", "0.92"),
        ("KITH__DATASETS__CRM__GUARDS__ENABLED", "false"),
        ("KITH__LIMITS__UPLOAD_BYTES", "1 GiB"),
        (
            "KITH__ADMIN__TOKENS",
            "[{ name = \"ops\", sha256 = \"abababababababababababababababababababababababababababababababab\", \
             datasets = \"*\", role = \"operate\" }]",
        ),
        ("PATH", "/bin"),
        ("KITH_OTHER", "x"),
    ];
    let config = with_env("[bid]\nthreads = 1", &env).expect("read");
    assert_eq!(config.bid.listen.port(), 7000);
    assert_eq!(config.bid.threads, 3);
    let demo = config.exchanges.get("demo").expect("there");
    assert_eq!(
        (demo.currency.as_str(), demo.no_bid, demo.allow.len()),
        ("EUR", NoBidForm::Status204, 1)
    );
    assert!(config.currency.rates.knows(demo.currency));
    let crm = config.datasets.get("crm").expect("there");
    assert!(!crm.guards.enabled && config.guards.enabled);
    assert_eq!(config.limits.upload_bytes, 1 << 30);
    assert_eq!(
        config.admin.tokens.first().map(|t| t.role),
        Some(Role::Operate)
    );
}

#[test]
fn a_variable_finds_names_that_it_cannot_spell() {
    let text = "[exchanges.AdX-eu]\n[exchanges.\"b.c\"]\n";
    let env = [
        ("KITH__EXCHANGES__ADX_EU__SEAT", "one"),
        ("KITH__EXCHANGES__B_C__SEAT", "two"),
    ];
    let config = with_env(text, &env).expect("read");
    let seats: Vec<&str> = config.exchanges.iter().map(|e| e.seat.as_str()).collect();
    assert_eq!(seats, ["one", "two"]);
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value, expect) in [
        (
            "KITH__BID__LISEN",
            "x",
            "KITH__BID__LISEN: unknown key \"lisen\" in [bid]; did you mean \"listen\"?",
        ),
        (
            "KITH__BID__LISTEN",
            "x",
            "KITH__BID__LISTEN: [bid] listen: \"x\" is not an address like 127.0.0.1:8080",
        ),
        (
            "KITH__BIDS__LISTEN",
            "x",
            "KITH__BIDS__LISTEN: unknown section [bids]; did you mean [bid]?",
        ),
        (
            "KITH__BID",
            "x",
            "KITH__BID: a variable is named KITH__SECTION__KEY",
        ),
        (
            "KITH__BID__",
            "x",
            "KITH__BID__: a variable is named KITH__SECTION__KEY",
        ),
        (
            "KITH__BID__LISTEN__PORT",
            "1",
            "KITH__BID__LISTEN__PORT: listen is a value, not a section",
        ),
        (
            "KITH__LIMITS__UPLOADS",
            "99999999999999999999",
            "KITH__LIMITS__UPLOADS: [limits] uploads: 99999999999999999999 is not a whole number from 1 to 1024",
        ),
    ] {
        let error = with_env("[bid]\nlisten = \"127.0.0.1:1\"", &[(name, value)]);
        assert_eq!(error.expect_err("refused").to_string(), expect);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let path = PathBuf::from("/nowhere/kith.toml");
    let told = Config::load(Some(&path), &none)
        .expect_err("refused")
        .to_string();
    assert!(
        told.starts_with("configuration file /nowhere/kith.toml: "),
        "{told}"
    );
}

#[test]
fn check_tells_what_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kith.toml");
    std::fs::write(&path, include_str!("../../fixtures/kith.toml")).expect("written");
    let report = super::check(&path, &none).expect("good");
    assert_eq!(report.exchanges, ["Beta", "alpha"]);
    assert_eq!(report.datasets, ["campaigns", "crm"]);
    assert_eq!((report.tokens, report.warnings.len()), (1, 1));
    std::fs::write(&path, "[bid]\nx = 1").expect("written");
    let told = super::check(&path, &none).expect_err("refused").to_string();
    assert!(told.contains("kith.toml:2: unknown key \"x\""), "{told}");
}

#[test]
fn notice_urls_begin_with_the_public_url_or_where_it_listens() {
    let named = "[bid]\npublic_url = \"http://b.example/\"";
    let bound = "127.0.0.1:4711".parse().expect("an address");
    assert_eq!(read(named).bid.public_url(bound), "http://b.example");
    assert_eq!(read("").bid.public_url(bound), "http://127.0.0.1:4711");
}

#[test]
fn our_registration_comes_from_the_vendor_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vendor-list.json");
    let list = r#"{"vendors":{"7":{"purposes":[1],"legIntPurposes":[2],"flexiblePurposes":[]}}}"#;
    std::fs::write(&path, list).expect("written");
    let registration = |vendor_id: u16| {
        let text = format!("[privacy]\nvendor_id = {vendor_id}\nvendor_list = {path:?}");
        read(&text).privacy.registration()
    };
    let ours = registration(7).expect("a list").expect("an entry");
    assert_eq!(ours.legitimate_interest, Purposes::of(&[2]));
    let told = registration(8).expect_err("nobody");
    assert!(
        told.contains("vendor-list.json") && told.contains("no vendor 8"),
        "{told}"
    );
    assert_eq!(
        read("[privacy]\nvendor_id = 7").privacy.registration(),
        Ok(None)
    );
    std::fs::remove_file(&path).expect("removed");
    assert!(registration(7).is_err());
    let text = "[privacy]\npurpose_one_undisclosed = [\"de\", \"AT\"]";
    assert_eq!(
        *read(text).privacy.purpose_one_undisclosed,
        [*b"DE", *b"AT"]
    );
}

#[test]
fn what_is_not_built_yet_warns_only_where_it_is_set() {
    let text = "[web]\nlisten = \"\"";
    assert_eq!(read(text).warnings().len(), 1, "{text}");
    for kind in ["audience", "filter", "identity"] {
        let text = format!("[datasets.a]\nkind = \"{kind}\"");
        assert!(read(&text).warnings().is_empty(), "{text}");
    }
    assert!(read("[budget]\n[web]\n[privacy]").warnings().is_empty());
}

#[test]
fn a_filter_has_its_terms() {
    let filter = |text: &str| {
        let config = read(text);
        let name = "a".parse().expect("a name");
        (
            config.datasets.get_or_default(&name).filter,
            config.warnings().len(),
        )
    };
    let (defaults, warnings) = filter("");
    assert_eq!(defaults.false_positive_rate.share(), 0.01);
    assert_eq!(
        (defaults.errors, defaults.confirm, warnings),
        (Errors::WronglyExcluded, None, 0)
    );
    let exact = "[datasets.b]\n[datasets.a]\nkind = \"filter\"\nfalse_positive_rate = 0.0001\nerrors = \"wrongly_included\"\nconfirm = \"b\"";
    let (said, warnings) = filter(exact);
    assert_eq!(said.false_positive_rate.share(), 0.0001);
    assert_eq!(said.errors, Errors::WronglyIncluded);
    assert_eq!(
        said.confirm.map(|name| name.to_string()),
        Some("b".to_owned())
    );
    assert_eq!(warnings, 0);
    // Nobody has heard of c.
    assert_eq!(
        filter("[datasets.a]\nkind = \"filter\"\nconfirm = \"c\"").1,
        1
    );
    // An audience has no errors.
    for key in [
        "false_positive_rate = 0.01",
        "errors = \"wrongly_included\"",
        "confirm = \"b\"",
    ] {
        assert_eq!(filter(&format!("[datasets.a]\n{key}")).1, 1, "{key}");
    }
}

#[test]
fn each_key_is_declared_once() {
    let keys = keys();
    let distinct: HashSet<(&str, &str)> = keys
        .iter()
        .map(|key| (key.section.as_str(), key.name))
        .collect();
    assert_eq!(distinct.len(), keys.len());
    assert!(keys.iter().all(|key| !key.meaning.is_empty()));
}

#[test]
fn every_declared_default_is_taken_when_it_is_written_out() {
    for key in keys() {
        if key.default == "required" || key.default.starts_with("that of") {
            continue;
        }
        let section = match key.section.as_str() {
            "admin.tokens[]" => continue,
            section => section.replace("<name>", "demo"),
        };
        let text = format!("[{section}]\n{} = {}", key.name, key.default);
        let written = Config {
            warnings: Vec::new(),
            ..read(&text)
        };
        // A named section that is there at all may be new; only the unnamed ones give the default configuration.
        if !section.starts_with("datasets") {
            assert_eq!(written, Config::default(), "{text}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_can_panic(text in "(\\[(bid|exchanges\\.a|admin|limits)\\]\n)?([a-z_]{1,9} = [\"\\[\\]{}0-9a-z.,= -]{0,20}\n){0,4}") {
        let _ = Config::from_toml(&text, "t");
    }
}
