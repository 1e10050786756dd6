//! The scripted upstream: a real HTTP/1.1 server that speaks OpenAI chat completions, Anthropic messages and Gemini's
//! generateContent, does what its script says, and
//! records what reached it. It runs inside a test or, with control routes, as the process `scripted-upstream`; it is
//! the mock of the benchmarks too, where `lean` leaves the records out.

mod chat;
mod control;
mod forms;
mod play;
mod record;
mod script;
mod wire;

pub use record::{Call, ModelStats, Stats};
pub use script::{Act, Reply, Rule, Script, Usage};

use play::After;
use record::Recorder;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use wire::{Conn, Gone, Request};

const PATIENCE: Duration = Duration::from_secs(20);

/// How to start an [`Upstream`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Address to bind; port 0 picks a free one. Absent: `127.0.0.1:0`.
    pub listen: Option<SocketAddr>,
    /// Counts only: no headers, bodies or calls are kept.
    pub lean: bool,
    /// What to do at first.
    pub script: Script,
}

/// A running upstream. Dropping it closes its port and every connection.
#[derive(Debug)]
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Upstream {
    /// Starts one on a free port of loopback, recording everything, answering properly.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await.expect("a free port on loopback")
    }

    /// Starts one as told.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start_with(options: Options) -> io::Result<Self> {
        let listen = options.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        let listener = socket.listen(16 * 1024)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            recorder: Arc::new(Recorder::new(options.lean)),
            script: RwLock::new(Arc::new(Playbook::new(options.script))),
            gates: Gates::default(),
        });
        let server = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, server })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for a provider's config: `http://ADDR/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Replaces the script; requests already being answered go on as they began.
    pub fn set(&self, script: impl Into<Script>) {
        self.shared.set(script.into());
    }

    /// Every call so far, in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.recorder.calls()
    }

    /// The counts.
    pub fn stats(&self) -> Stats {
        self.shared.recorder.stats()
    }

    /// Forgets every call and count but what is in flight.
    pub fn clear(&self) {
        self.shared.recorder.clear();
    }

    /// Lets so many requests through the gate `main`, in order of arrival; permits not used yet wait for who comes.
    pub fn release(&self, count: usize) {
        self.shared.gates.release("main", count);
    }

    /// Lets so many requests through a named gate.
    pub fn release_at(&self, gate: &str, count: usize) {
        self.shared.gates.release(gate, count);
    }

    /// Opens the gate `main` for good.
    pub fn open(&self) {
        self.shared.gates.open("main");
    }

    /// Opens a named gate for good.
    pub fn open_at(&self, gate: &str) {
        self.shared.gates.open(gate);
    }

    /// Waits until the counts satisfy `is_so`.
    ///
    /// # Panics
    /// After 20 seconds, with the counts as they are.
    pub async fn wait_until(&self, what: &str, is_so: impl Fn(&Stats) -> bool) -> Stats {
        let waiting = async {
            loop {
                let changed = self.shared.recorder.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let stats = self.stats();
                if is_so(&stats) {
                    return stats;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(stats) => stats,
            Err(_) => panic!("the upstream never saw: {what}; it saw {:?}", self.stats()),
        }
    }

    /// Waits until so many requests have arrived.
    pub async fn arrived(&self, count: u64) -> Stats {
        self.wait_until(&format!("{count} arrivals"), |stats| stats.requests >= count).await
    }

    /// Waits until so many requests are over.
    pub async fn ended(&self, count: u64) -> Stats {
        self.wait_until(&format!("{count} ends"), |stats| stats.ended >= count).await
    }

    /// Waits until exactly so many requests are in flight.
    pub async fn in_flight(&self, count: u64) -> Stats {
        self.wait_until(&format!("{count} in flight"), |stats| stats.in_flight == count).await
    }

    /// Serves until the process ends.
    pub async fn serve_forever(mut self) {
        // The server task ends only by being aborted.
        let _ = (&mut self.server).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) recorder: Arc<Recorder>,
    script: RwLock<Arc<Playbook>>,
    pub(crate) gates: Gates,
}

impl Shared {
    pub(crate) fn set(&self, script: Script) {
        *self.script.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Playbook::new(script));
    }

    fn playbook(&self) -> Arc<Playbook> {
        Arc::clone(&self.script.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A script and how often its rules may still apply.
#[derive(Debug)]
struct Playbook {
    script: Script,
    left: Mutex<Vec<u64>>,
}

impl Playbook {
    fn new(script: Script) -> Self {
        let left = script.rules.iter().map(|rule| rule.times.unwrap_or(u64::MAX)).collect();
        Self { script, left: Mutex::new(left) }
    }

    fn choose(&self, request: &Request, model: &str) -> &Reply {
        if self.script.rules.is_empty() {
            return &self.script.otherwise;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for (rule, left) in self.script.rules.iter().zip(left.iter_mut()) {
            if *left > 0 && matches(rule, request, model) {
                *left -= 1;
                return &rule.reply;
            }
        }
        &self.script.otherwise
    }
}

fn matches(rule: &Rule, request: &Request, model: &str) -> bool {
    rule.model.as_deref().is_none_or(|wanted| wanted == model)
        && rule.header.as_ref().is_none_or(|(name, value)| request.header(name) == Some(value))
        && rule.body_contains.as_ref().is_none_or(|t| memchr::memmem::find(&request.body, t.as_bytes()).is_some())
}

/// Semaphores by name, where held replies wait.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Gates {
    pub(crate) fn get(&self, name: &str) -> Arc<Semaphore> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(0))))
    }

    pub(crate) fn release(&self, name: &str, count: usize) {
        self.get(name).add_permits(count);
    }

    pub(crate) fn open(&self, name: &str) {
        self.get(name).close();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shared.recorder.connected();
                    connections.spawn(converse(Conn::new(stream), Arc::clone(&shared)));
                }
                // Out of file descriptors: the next turn may find some.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(mut conn: Conn, shared: Arc<Shared>) {
    while let Ok(Some(request)) = conn.read().await {
        match answer(&mut conn, &shared, &request).await {
            Ok(After::KeepOpen) if request.keep_alive => {}
            Ok(_) | Err(Gone) => return,
        }
    }
}

async fn answer(conn: &mut Conn, shared: &Shared, request: &Request) -> Result<After, Gone> {
    let path = request.path.split('?').next().unwrap_or_default();
    let out = if path.starts_with("/_control/") {
        control::answer(shared, request)
    } else if request.method == "POST"
        && (path.ends_with("/chat/completions") || forms::Form::of(path) != forms::Form::Openai)
    {
        return answer_chat(conn, shared, request).await;
    } else if request.method == "GET" && path.ends_with("/models") {
        control::reply(200, chat::models_body(&shared.playbook().script.models))
    } else {
        control::reply(404, chat::error_body(404, "no such route"))
    };
    conn.write(&out).await?;
    Ok(After::KeepOpen)
}

async fn answer_chat(conn: &mut Conn, shared: &Shared, request: &Request) -> Result<After, Gone> {
    let once;
    let mut parsed: Result<chat::Ask<'_>, _> = serde_json::from_slice(&request.body);
    if parsed.is_err() {
        once = chat::without_repeats(&request.body);
        if let Some(once) = &once {
            parsed = serde_json::from_slice(once);
        }
    }
    if let (Ok(ask), Some(model)) = (&mut parsed, forms::model_in(&request.path)) {
        ask.model = model.to_owned().into();
        ask.stream = Some(request.path.contains(":stream"));
    }
    let mut call = Call { arrived_us: request.arrived_us, ..Call::default() };
    if let Ok(ask) = &parsed {
        call.model = ask.model.to_string();
        call.stream = ask.stream.unwrap_or(false);
        call.max_tokens = ask.cap();
    }
    if !shared.recorder.lean {
        call.path.clone_from(&request.path);
        call.headers.clone_from(&request.headers);
        call.body = request.body.to_vec();
    }
    let mut open = shared.recorder.arrive(call);
    let playbook = shared.playbook();
    match parsed {
        Ok(ask) => {
            let reply = playbook.choose(request, &ask.model);
            play::play(conn, request, &ask, reply, &shared.gates, &mut open).await
        }
        Err(error) => {
            open.said.status = 400;
            open.finish();
            conn.write(&control::reply(400, chat::error_body(400, &error.to_string()))).await?;
            Ok(After::KeepOpen)
        }
    }
}
