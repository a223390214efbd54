//! A Kith with something to tell, and a Prometheus that asks it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kith::config::Config;
use kith::service::Service;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing here takes longer, on whatever machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A file of the repository.
pub fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Tries until there is a yes.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < deadline, "{what}: {last}"),
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent()
}

/// A running Kith, its datasets and its exchanges. Dropped, it stops.
pub struct Kith {
    agent: ureq::Agent,
    admin: String,
    bid: String,
    stop: Arc<AtomicBool>,
    load: Option<JoinHandle<u64>>,
    _service: Service,
    _dir: TempDir,
}

impl Kith {
    /// Starts, with two exchanges, two live audiences, a live filter, campaigns and a held version.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let toml = format!(
            "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {:?}\n\
             [limits]\nqueue_target_ms = 20000\n[exchanges.demo]\ndefault_tmax_ms = 60000\n[exchanges.other]\ndefault_tmax_ms = 60000\n",
            dir.path().join("data").display().to_string()
        );
        let config = Config::from_toml(&toml, "test").expect("a configuration");
        let service = Service::start(config).expect("a service");
        let kith = Self {
            agent: agent(),
            admin: format!("http://{}", service.admin_addr()),
            bid: format!("http://{}", service.bid_addr()),
            stop: Arc::default(),
            load: None,
            _service: service,
            _dir: dir,
        };
        until("ready", || match kith.get("/readyz").0 {
            200 => Ok(()),
            status => Err(status.to_string()),
        });
        kith.upload(
            "campaigns/versions/1",
            "application/json",
            &campaigns(),
            "active",
        );
        let csv = |rows: &[&str]| format!("source,id,segments\n{}\n", rows.join("\n"));
        let crm = csv(&["buyeruid,u1,vip", "buyeruid,u2,vip|sports"]);
        kith.upload(
            "crm/versions/1?as_of=2024-01-01T00:00:00Z",
            "text/csv",
            &crm,
            "active",
        );
        kith.upload(
            "crm/versions/2",
            "text/csv",
            &csv(&["buyeruid,u1,vip"]),
            "active",
        );
        kith.upload(
            "crm/versions/3",
            "text/csv",
            &csv(&["buyeruid,u1,vip", "buyeruid,null,vip"]),
            "held",
        );
        kith.upload(
            "site/versions/1",
            "text/csv",
            &csv(&["ifa,abc,cart"]),
            "active",
        );
        kith.upload(
            "optout/versions/1?kind=filter&source=ifa&segment=list",
            "text/plain",
            "def\n",
            "active",
        );
        let update = r#"{"source": "ifa", "id": "updated", "add": ["site/cart"]}"#;
        let url = format!("{}/v1/users", kith.admin);
        let answer = kith.agent.post(url).send(update).expect("an answer");
        assert_eq!(answer.status(), 200);
        kith
    }

    pub fn admin_address(&self) -> &str {
        self.admin.trim_start_matches("http://")
    }

    pub fn metrics(&self) -> String {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        text
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut answer = self
            .agent
            .get(format!("{}{path}", self.admin))
            .call()
            .expect("an answer");
        (
            answer.status().as_u16(),
            answer.body_mut().read_to_string().expect("text"),
        )
    }

    fn upload(&self, version: &str, kind: &str, body: &str, state: &str) {
        let url = format!("{}/v1/datasets/{version}", self.admin);
        let mut answer = self
            .agent
            .put(url)
            .content_type(kind)
            .send(body)
            .expect("an answer");
        let report = answer.body_mut().read_to_string().expect("text");
        let report: Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report["state"], state, "{version}: {report:#}");
    }

    /// Requests of every kind and swaps, a few hundred and a few a second, until the end.
    pub fn load(&mut self) {
        let (bid, admin, agent) = (self.bid.clone(), self.admin.clone(), self.agent.clone());
        let stop = Arc::clone(&self.stop);
        let requests = requests();
        self.load = Some(thread::spawn(move || {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                for (path, body, status) in &requests {
                    let answer = agent.post(format!("{bid}{path}")).send(body.as_str());
                    assert_eq!(
                        answer.expect("an answer").status(),
                        *status,
                        "{path} {body}"
                    );
                }
                let swap = json!({"version": 1 + rounds % 2}).to_string();
                let url = format!("{admin}/v1/datasets/crm/activate");
                let answer = agent.post(url).content_type("application/json").send(swap);
                assert_eq!(answer.expect("an answer").status(), 200);
                rounds += 1;
                thread::sleep(Duration::from_millis(100));
            }
            rounds
        }));
    }

    /// Ends the load; every answer was the one expected.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let load = self.load.take().expect("a load");
        assert!(load.join().expect("the load went well") > 0);
    }
}

impl Drop for Kith {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn campaigns() -> String {
    json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "cr", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<a>", "secure": true}],
        "line_items": [{"id": "vip", "creatives": ["cr"], "targeting": "segments one of ['crm/vip']",
                        "price": {"cpm": "4.20", "currency": "USD"}}]})
    .to_string()
}

/// Path, body, and how it is answered.
fn requests() -> Vec<(&'static str, String, u16)> {
    let request = |change: &dyn Fn(&mut Value)| {
        let mut request = json!({
            "id": "r", "at": 1, "tmax": 5000, "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
            "site": {"domain": "news.example"}, "device": {"geo": {"country": "USA"}}, "user": {"buyeruid": "u1"}});
        change(&mut request);
        request.to_string()
    };
    let set = |key: &'static str, value: Value| request(&move |r| r[key] = value.clone());
    vec![
        ("/bid/demo", request(&|_| {}), 200),
        ("/bid/other", request(&|_| {}), 200),
        ("/bid/demo", set("user", json!({"buyeruid": "nobody"})), 204),
        ("/bid/demo", set("device", json!({"lmt": 1})), 204),
        ("/bid/demo", set("regs", json!({"coppa": 1})), 204),
        ("/bid/demo", set("bcat", json!(7)), 204),
        ("/bid/demo", set("tmax", json!(1)), 204),
        ("/bid/demo", "{\"id\":".to_owned(), 400),
        ("/bid/nobody", request(&|_| {}), 404),
    ]
}

/// A program of the package prometheus, where there is one: on the path, or where `scripts/test` puts it.
pub fn program(name: &str) -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/tools")
        .join(name);
    [PathBuf::from(name), fetched].into_iter().find(|path| {
        Command::new(path)
            .arg("--version")
            .output()
            .is_ok_and(|o| o.status.success())
    })
}

/// A running Prometheus. Dropped, it stops.
pub struct Prometheus {
    child: Child,
    agent: ureq::Agent,
    url: String,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts with the repository's own configuration, but four scrapes a second of the Kith at this address.
    pub fn start(program: &Path, admin: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let of = |name: &str| file(&format!("grafana/prometheus/{name}"));
        let mut config = of("prometheus.yml");
        for (from, to) in [
            ("127.0.0.1:9090", admin),
            ("scrape_interval: 15s", "scrape_interval: 250ms"),
            ("scrape_timeout: 5s", "scrape_timeout: 250ms"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        ] {
            assert_eq!(
                config.matches(from).count(),
                1,
                "prometheus.yml says {from} once"
            );
            config = config.replace(from, to);
        }
        let put =
            |file: &str, text: &str| std::fs::write(dir.path().join(file), text).expect("written");
        put("prometheus.yml", &config);
        put("alerts.yml", &of("alerts.yml"));
        let mut child = Command::new(program)
            .arg(format!(
                "--config.file={}",
                dir.path().join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus runs");
        let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
        let mut said = Vec::new();
        let address = log.by_ref().map_while(Result::ok).find_map(|line| {
            let found = line
                .contains("Listening on")
                .then(|| line.split("address=").nth(1));
            let address = found
                .flatten()
                .map(|rest| rest.split(' ').next().unwrap_or(rest).to_owned());
            said.push(line);
            address
        });
        // Keep the pipe from filling up.
        thread::spawn(move || log.for_each(drop));
        let address =
            address.unwrap_or_else(|| panic!("prometheus did not start:\n{}", said.join("\n")));
        Self {
            child,
            agent: agent(),
            url: format!("http://{address}/api/v1/"),
            _dir: dir,
        }
    }

    fn ask(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> Result<Value, String> {
        let mut answer = request.call().map_err(|e| e.to_string())?;
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// The series that a query gives now.
    pub fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let data = self.ask(
            self.agent
                .get(format!("{}query", self.url))
                .query("query", query),
        )?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// All alerts' rules, as they stand.
    pub fn rules(&self) -> Result<Vec<Value>, String> {
        let data = self.ask(self.agent.get(format!("{}rules", self.url)))?;
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        Ok(groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
