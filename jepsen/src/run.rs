//! One run: start everything, let clients and nemeses work, mend, wait for rest, collect, check, report.

use crate::chance::Chance;
use crate::checker::{self, Verdict};
use crate::client::{Admin, ChatClient};
use crate::clock;
use crate::db::{Binaries, Db, Node, Setup};
use crate::generator::Generator;
use crate::history::{Call, Folded, Header, NodeState, Pool, Recorder, What};
use crate::nemesis::{self, Scene};
use crate::report;
use crate::workload::{Key, Workload};
use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Longer than a client waits for any reply.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(15);
/// A node that was killed gives its holds back at once, a silent one when its lease and the longest request are over.
const QUIET_WITHIN: Duration = Duration::from_secs(30);
/// A node that is down answers at once that it is; a client does not hammer it.
const AFTER_REFUSED_CONNECTION: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: u64,
    pub(crate) time: Duration,
    pub(crate) workloads: Vec<&'static Workload>,
    pub(crate) nemesis: String,
    pub(crate) binaries: Binaries,
    /// The report's folder.
    pub(crate) out: PathBuf,
    /// The command that replays the run.
    pub(crate) command: String,
}

/// Runs, checks and reports. Ends every process it started, whatever happens.
///
/// # Errors
/// A fault of the harness or the machine: no verdict.
pub(crate) async fn run(plan: &Plan, bar: &ProgressBar) -> anyhow::Result<Verdict> {
    let nodes_dir = plan.out.join("nodes");
    std::fs::create_dir_all(&nodes_dir).with_context(|| format!("cannot make {}", nodes_dir.display()))?;
    let nodes_dir = nodes_dir.canonicalize()?;
    let recorder = Arc::new(Recorder::new(&plan.out.join(report::HISTORY))?);
    let worked = work(plan, &nodes_dir, &recorder, bar).await;
    let history = recorder.finish();
    keep_logs(&plan.out, &nodes_dir);
    worked?;
    let history = history?;
    bar.set_message("checking");
    let findings = checker::judge(&history);
    let verdict = report::write(&plan.out, &history, &findings, &plan.command)?;
    Ok(verdict)
}

async fn work(plan: &Plan, dir: &Path, recorder: &Arc<Recorder>, bar: &ProgressBar) -> anyhow::Result<()> {
    let pools: Vec<Pool> = plan.workloads.iter().flat_map(|workload| (workload.pools)()).collect();
    let named = nemesis::named(&plan.nemesis)?;
    let (lanes, skipped) = nemesis::lanes(&named, plan.seed, plan.nodes);
    let asked = named.iter().flatten().map(|nemesis| nemesis.name.to_owned());
    let asked = asked.filter(|name| skipped.iter().all(|(other, _)| other != name)).collect();
    recorder.note(What::Run(Header {
        seed: plan.seed,
        nodes: plan.nodes,
        time_s: plan.time.as_secs(),
        workloads: plan.workloads.iter().map(|workload| workload.name.to_owned()).collect(),
        nemesis: plan.nemesis.clone(),
        asked,
        fabric: if plan.nodes == 1 { "none" } else { "a TCP proxy per directed link" }.to_owned(),
        pools: pools.clone(),
        worker_threads: std::thread::available_parallelism().map_or(2, |count| count.get() as u64),
        skipped,
    }));
    bar.set_message("starting");
    recorder.stage("start");
    let setup = Setup { binaries: plan.binaries.clone(), nodes: plan.nodes, snapshot_entries: 500 };
    let db = Arc::new(Db::start(&setup, dir, &pools).await?);
    let outcome = exercise(plan, &db, recorder, lanes, bar).await;
    db.stop().await;
    outcome
}

async fn exercise(
    plan: &Plan,
    db: &Arc<Db>,
    recorder: &Arc<Recorder>,
    lanes: Vec<nemesis::Lane>,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let keys = make_keys(plan, db).await?;
    recorder.stage("work");
    let until = Instant::now() + plan.time;
    let mut side = JoinSet::new();
    side.spawn(watch_stalls(recorder.clone()));
    side.spawn(watch_nodes(db.clone(), recorder.clone()));
    side.spawn(drain_upstream(db.clone(), recorder.clone()));
    side.spawn(show_progress(bar.clone(), recorder.clone(), plan.time));
    let mut nemeses = JoinSet::new();
    for lane in lanes {
        let scene = Scene { db: db.clone(), recorder: recorder.clone() };
        nemeses.spawn(async move { lane.run(&scene, until).await });
    }
    let mut clients = start_clients(plan, db, recorder, &keys, until)?;
    while nemeses.join_next().await.is_some() {}
    sleep_until(until).await;
    bar.set_message("mending");
    recorder.stage("mend");
    db.mend().await?;
    let ended = tokio::time::timeout(CLIENTS_END_WITHIN, async { while clients.join_next().await.is_some() {} }).await;
    ended.context("clients did not end")?;
    bar.set_message("waiting for rest");
    recorder.stage("quiet");
    quiet(db).await;
    side.shutdown().await;
    bar.set_message("collecting");
    collect(plan, db, recorder, &keys).await
}

/// The keys' secrets by name.
async fn make_keys(plan: &Plan, db: &Db) -> anyhow::Result<HashMap<&'static str, String>> {
    let mut keys = HashMap::new();
    for Key { name, fields, .. } in plan.workloads.iter().flat_map(|workload| (workload.keys)()) {
        let mut fields = fields;
        fields["name"] = name.into();
        keys.insert(name, db.admin().create_key(&fields).await?);
    }
    Ok(keys)
}

fn start_clients(
    plan: &Plan,
    db: &Arc<Db>,
    recorder: &Arc<Recorder>,
    keys: &HashMap<&'static str, String>,
    until: Instant,
) -> anyhow::Result<JoinSet<()>> {
    let mut clients = JoinSet::new();
    let keys: Arc<HashMap<String, String>> =
        Arc::new(keys.iter().map(|(name, key)| ((*name).to_owned(), key.clone())).collect());
    let generators = plan.workloads.iter().flat_map(|workload| (workload.clients)(plan.nodes));
    for (process, generator) in generators.enumerate() {
        let client = Client {
            process: process as u64 + 1,
            chance: Chance::of(plan.seed, &format!("client {process}")),
            db: db.clone(),
            recorder: recorder.clone(),
            keys: keys.clone(),
            http: ChatClient::new()?,
            admin: db.admin(),
        };
        clients.spawn(client.run(generator, until));
    }
    Ok(clients)
}

/// One client: does what its generator says, on a node of chance each time.
struct Client {
    process: u64,
    chance: Chance,
    db: Arc<Db>,
    recorder: Arc<Recorder>,
    keys: Arc<HashMap<String, String>>,
    http: ChatClient,
    admin: Admin,
}

impl Client {
    async fn run(mut self, mut generator: Box<dyn Generator>, until: Instant) {
        loop {
            let step = generator.next(&mut self.chance);
            sleep(step.pause).await;
            if Instant::now() >= until {
                return;
            }
            let Some(node) = self.chance.pick(&self.db.nodes).cloned() else { return };
            let op = self.recorder.begin(self.process, node.id, |_| step.call.clone());
            let outcome = match &step.call {
                Call::Chat(chat) => {
                    let key = self.keys.get(&chat.key).map(String::as_str).unwrap_or_default();
                    self.http.call(&node, op, chat, key).await
                }
                Call::SetLimit { register, value } => self.admin.set_limit(&node, register, *value).await,
                Call::GetLimit { register } => self.admin.limit(&node, register).await,
            };
            let was_refused = outcome == crate::history::Outcome::Fail("not connected".to_owned());
            self.recorder.end(op, outcome);
            if was_refused {
                sleep(AFTER_REFUSED_CONNECTION).await;
            }
        }
    }
}

/// Notes how long the machine keeps a 1 ms ticker waiting, by second.
async fn watch_stalls(recorder: Arc<Recorder>) {
    let (mut worst_us, mut noted_us) = (0, clock::boot_us());
    loop {
        let began_us = clock::boot_us();
        sleep(Duration::from_millis(1)).await;
        let now_us = clock::boot_us();
        worst_us = worst_us.max((now_us - began_us).saturating_sub(1_000));
        if now_us - noted_us >= 1_000_000 {
            recorder.note(What::Stall { us: worst_us });
            (worst_us, noted_us) = (0, now_us);
        }
    }
}

/// Asks every node for its state, again and again.
async fn watch_nodes(db: Arc<Db>, recorder: Arc<Recorder>) {
    let admin = db.admin();
    loop {
        for node in &db.nodes {
            // A node that is down or stopped says nothing.
            if let Ok(Ok(state)) = tokio::time::timeout(Duration::from_millis(300), admin.state(node)).await {
                recorder.note(What::Node(state));
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn drain_upstream(db: Arc<Db>, recorder: Arc<Recorder>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        // What cannot be had now comes with the next turn, and the last one counts.
        let _ = db.upstream.collect(&recorder).await;
    }
}

async fn show_progress(bar: ProgressBar, recorder: Arc<Recorder>, time: Duration) {
    let began = Instant::now();
    loop {
        bar.set_position(began.elapsed().min(time).as_secs());
        bar.set_message(format!("{} operations", recorder.ops()));
        sleep(Duration::from_millis(250)).await;
    }
}

/// Waits until nothing is under way anywhere, or patience ends; what is left is for the checker.
async fn quiet(db: &Db) {
    let until = Instant::now() + QUIET_WITHIN;
    let admin = db.admin();
    while Instant::now() < until {
        let mut at_rest = db.upstream.in_flight().await.is_ok_and(|count| count == 0);
        for node in &db.nodes {
            at_rest &= admin.outstanding(node).await.is_ok_and(|left| left.is_empty());
        }
        if at_rest {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// What is left on a node once nothing is, or patience ends: a lease may still be on its way back.
async fn rest(admin: &Admin, node: &Node) -> anyhow::Result<Vec<String>> {
    let until = Instant::now() + QUIET_WITHIN;
    loop {
        let left = admin.outstanding(node).await?;
        if left.is_empty() || Instant::now() > until {
            return Ok(left);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn collect(
    plan: &Plan,
    db: &Db,
    recorder: &Recorder,
    keys: &HashMap<&'static str, String>,
) -> anyhow::Result<()> {
    let admin = db.admin();
    for node in &db.nodes {
        if let (Ok(state), Ok(outstanding)) = (admin.state(node).await, rest(&admin, node).await) {
            recorder.note(What::Node(NodeState { is_final: true, outstanding, ..state }));
        }
    }
    let limited: Vec<Key> = plan.workloads.iter().flat_map(|workload| (workload.keys)()).collect();
    let names = key_names(&admin, db).await?;
    for Key { name, tokens_per_day, model, .. } in limited {
        let (Some(limit), Some(secret)) = (tokens_per_day, keys.get(name)) else { continue };
        let left = ChatClient::new()?.quota_left(db.node(1)?, model, secret).await?;
        recorder.note(What::Quota { key: name.to_owned(), limit, left });
    }
    db.upstream.collect(recorder).await?;
    for mut row in settled_rows(&admin, recorder).await? {
        if let Some(name) = names.get(&row.key_id) {
            row.key_id.clone_from(name);
        }
        recorder.note(What::Row(row));
    }
    Ok(())
}

/// Every usage row, once there is one for each arrival, or patience ends.
async fn settled_rows(admin: &Admin, recorder: &Recorder) -> anyhow::Result<Vec<crate::history::Row>> {
    let arrivals = recorder.finish()?.arrivals.len();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let rows = admin.usage_rows().await?;
        if rows.len() >= arrivals || Instant::now() > until {
            return Ok(rows);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Key ids to names, as the admin route tells them.
async fn key_names(admin: &Admin, db: &Db) -> anyhow::Result<BTreeMap<String, String>> {
    let (_, reply) = admin.ask(db.node(1)?.as_ref(), reqwest::Method::GET, "/keys", None).await?;
    let keys = reply["keys"].as_array().cloned().unwrap_or_default();
    let text = |key: &Value, field: &str| key[field].as_str().map(str::to_owned);
    Ok(keys.iter().filter_map(|key| text(key, "id").zip(text(key, "name"))).collect())
}

/// Keeps the logs in the report's folder and removes what else the nodes wrote.
fn keep_logs(out: &Path, nodes_dir: &Path) {
    let logs = out.join("logs");
    // What cannot be moved stays where it is: a report without a log is better than no report.
    let _ = std::fs::create_dir_all(&logs);
    for entry in std::fs::read_dir(nodes_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "log" || ending == "toml")
            && let Some(name) = path.file_name()
        {
            let _ = std::fs::rename(&path, logs.join(name));
        }
    }
    let _ = std::fs::remove_dir_all(nodes_dir);
}

/// Judges a history again.
///
/// # Errors
/// When it cannot be read, or the report not be written.
pub(crate) fn check_again(dir: &Path, command: &str) -> anyhow::Result<(Verdict, String)> {
    let history = Folded::read(&dir.join(report::HISTORY))?;
    let findings = checker::judge(&history);
    let verdict = report::write(dir, &history, &findings, command)?;
    Ok((verdict, report::text(verdict, &history, &findings, command)))
}
