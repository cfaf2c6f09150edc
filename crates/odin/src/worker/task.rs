//! Calls that become tasks, and the rounds of tasks, on one worker.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::slots::Slots;
use super::{Shared, WorkerConfig};
use crate::call::{
    Fence, Gone, Job, Message, Reach, Snapshot, State, TaskContext,
    task::{Asked, NewTask, Status, Support, TaskView, clip, end_of, error_of, message_of, unix_millis},
};
use crate::id::CallId;
use crate::protocol::{
    Era, code, jsonrpc,
    tasks::{UNDECLARED, declared, required},
};
use crate::store::{Claimed, TaskBegin};
use crate::worker::{Closed, Emission, Inbound, Outbox};

/// How long to wait before a command is tried again that the store did not answer.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the store may be silent before a call is refused that needs to know what was used.
const SILENT: Duration = Duration::from_secs(3);
/// How often a running task's note for people is renewed, at most.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Bytes that a task's result has at most: it is kept for long, and told on streams.
const RESULT: usize = 900_000;

/// The times of tasks whose tools say none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskTimes {
    /// How long a task is kept from its creation, its result included. Its work is stopped then as well.
    pub ttl: Duration,
    /// The longest time that a tool may ask for.
    pub longest: Duration,
    /// How often clients are told to ask.
    pub poll: Duration,
}

impl Default for TaskTimes {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(3600),
            longest: Duration::from_secs(7 * 24 * 3600),
            poll: Duration::from_secs(1),
        }
    }
}

setters!(TaskTimes {
    with_ttl => ttl: Duration,
    with_longest => longest: Duration,
    with_poll => poll: Duration,
});

/// A call on this worker: what runs it, and where its end goes. A call may be a round of a task, or become a task.
pub(super) struct Role {
    call: CallId,
    epoch: u32,
    /// The job as text.
    job: Message,
    tool: Option<String>,
    lost: Message,
    /// The task that it is a round of.
    task: Option<CallId>,
    /// Number of the round, once it is known.
    round: OnceLock<u32>,
    /// The task that it is to become.
    created: OnceLock<NewTask>,
    /// The round's end is in the record.
    ended: AtomicBool,
}

/// What became of an answer that was to be stored.
pub(super) enum Stored {
    /// As the store's FINISH says it.
    Reply(Result<State, Gone>),
    /// Another answer was stored in its place.
    Other(Message, Result<State, Gone>),
    /// Nothing was stored; this is the record's state.
    Not(State),
}

/// What to do with a call of a tool.
enum Entry {
    Run,
    Task(NewTask),
    Refuse(Message),
}

impl Role {
    pub(super) fn of(call: CallId, snapshot: &Snapshot) -> Self {
        let order = &snapshot.order;
        Self {
            call,
            epoch: snapshot.epoch,
            job: order.job.clone(),
            tool: order.tool.clone(),
            lost: order.lost.clone(),
            task: order.task,
            round: OnceLock::new(),
            created: OnceLock::new(),
            ended: AtomicBool::new(false),
        }
    }

    /// The slots that it takes one of.
    pub(super) fn slots<'a>(&self, shared: &'a Shared) -> &'a Arc<Slots> {
        if self.task.is_some() { &shared.task_slots } else { &shared.slots }
    }

    /// Bytes that its answer may have.
    pub(super) fn answer_bytes(&self, config: &WorkerConfig) -> usize {
        if self.task.is_some() { config.answer_bytes.min(RESULT) } else { config.answer_bytes }
    }

    /// Whether the call becomes a task, whose handle is its answer: that means nothing without the record.
    pub(super) fn becomes_task(&self) -> bool {
        self.created.get().is_some()
    }

    /// Whether the record of the call is closed already.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Runs the call's tool. The answer is what [`Role::store`] takes.
    pub(super) async fn run(
        &self,
        shared: &Shared,
        outbox: Arc<dyn Outbox>,
        inbox: mpsc::Receiver<Inbound>,
        abort: CancellationToken,
    ) -> Option<Message> {
        if let Some(task) = self.task {
            return self.run_round(shared, task, inbox, abort).await;
        }
        let job: Job = match serde_json::from_str(&self.job) {
            Ok(job) => job,
            Err(error) => {
                tracing::error!(%error, call = %self.call, "a call's job can't be read");
                return Some(self.lost());
            }
        };
        if let Err(refusal) = self.use_up(shared, &job, &abort).await {
            return refusal;
        }
        match self.entry(shared, &job) {
            Entry::Run => {}
            Entry::Refuse(answer) => return Some(answer),
            Entry::Task(task) => return Some(self.create(&job, task)),
        }
        let answer = shared.runner.run(job, outbox, inbox, abort).await?;
        if self.tool.is_some()
            && let Some(asked) = Asked::from_answer(answer.get())
            && let Ok(job) = serde_json::from_str::<Job>(&self.job)
        {
            return Some(match job.era {
                Era::Stateless => self.create(&job, self.new_task(shared, asked)),
                Era::Stateful => refusal(&job, code::INTERNAL_ERROR, NO_SESSION_TASKS),
            });
        }
        Some(Box::<str>::from(answer).into())
    }

    /// Uses up what the message may be run with once. A task's rounds go on with what the call that began it has
    /// used. An error: the answer in place of a run, if one is wanted.
    async fn use_up(
        &self,
        shared: &Shared,
        job: &Job,
        abort: &CancellationToken,
    ) -> Result<(), Option<Message>> {
        let Some(once) = self.tool.as_ref().and_then(|_| shared.runner.uses_up(job)) else { return Ok(()) };
        let call = self.call.to_string();
        let begun = Instant::now();
        loop {
            match shared.store.use_once(&once.name, &call, once.live).await {
                Ok(by) if by == call => return Ok(()),
                Ok(_) => {
                    tracing::info!(%call, "a requestState was used before");
                    return Err(Some(refusal(job, code::INVALID_PARAMS, USED)));
                }
                Err(_) if begun.elapsed() < SILENT => {}
                Err(error) => {
                    tracing::warn!(%call, %error, "it can't be told whether a requestState was used before");
                    return Err(Some(refusal(job, code::INTERNAL_ERROR, UNKNOWN_USE)));
                }
            }
            tokio::select! {
                () = abort.cancelled() => return Err(None),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// What the call answers when nobody knows what became of it.
    pub(super) fn lost(&self) -> Message {
        match self.task {
            Some(_) => wrap(&self.lost),
            None => self.lost.clone(),
        }
    }

    /// Stores the end of the call: as its answer, as the creation of a task, or as the end of a task's round.
    pub(super) async fn store(
        &self,
        shared: &Shared,
        fence: Fence<'_>,
        out: &Message,
    ) -> crate::store::Result<Stored> {
        let call = self.call;
        if let Some(task) = self.task {
            let end = end_of(out, self.round.get().copied().unwrap_or(1));
            let next = CallId::random();
            let ended = shared.store.end_run(task, call, fence, &end, next, unix_millis()).await?;
            return Ok(Stored::Reply(ended.map(|view| {
                self.ended.store(true, Ordering::Release);
                view.iter().for_each(|view| tell(shared, view));
                State { reach: Reach::None, event_count: 0, cancel: false }
            })));
        }
        let Some(task) = self.created.get() else {
            return Ok(Stored::Reply(shared.store.finish(call, fence, out).await?));
        };
        Ok(match shared.store.begin_task(call, fence, task, out).await? {
            Ok(TaskBegin::Created(state)) => Stored::Reply(Ok(state)),
            Ok(TaskBegin::Nobody(state)) => Stored::Not(state),
            Ok(TaskBegin::Full) => {
                let full = match serde_json::from_str::<Job>(&task.job) {
                    Ok(job) => refusal(&job, code::INTERNAL_ERROR, TOO_MANY),
                    Err(_) => wrap(&task.lost),
                };
                let reply = shared.store.finish(call, fence, &full).await?;
                Stored::Other(full, reply)
            }
            Err(gone) => Stored::Reply(Err(gone)),
        })
    }

    /// The handle of the task that the call becomes, as its answer.
    fn create(&self, job: &Job, task: NewTask) -> Message {
        let view = TaskView {
            id: self.call,
            status: Status::Working,
            note: None,
            created: task.created,
            updated: task.created,
            ttl: task.ttl,
            poll: task.poll,
            asks: Default::default(),
            outcome: None,
            server_info: task.server_info.clone(),
        };
        let handle = answer(job, Ok(view.handle()));
        // A call is run once on a worker.
        let _ = self.created.set(task);
        handle
    }

    fn entry(&self, shared: &Shared, job: &Job) -> Entry {
        let Some(tool) = &self.tool else { return Entry::Run };
        let said = shared.runner.task_tool(tool);
        if said.support == Support::Never {
            return Entry::Run;
        }
        let knows = job.era == Era::Stateless && declares(job);
        match said.support {
            _ if knows => {
                let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let asked = Asked { ttl: said.ttl.map(millis), poll: said.poll.map(millis) };
                Entry::Task(self.new_task(shared, asked))
            }
            Support::Required if job.era == Era::Stateless => {
                Entry::Refuse(refusal(job, code::MISSING_CLIENT_CAPABILITY, UNDECLARED))
            }
            Support::Required => Entry::Refuse(refusal(job, code::INTERNAL_ERROR, NO_SESSION_TASKS)),
            _ => Entry::Run,
        }
    }

    fn new_task(&self, shared: &Shared, asked: Asked) -> NewTask {
        let times = &shared.config.tasks;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        NewTask {
            run: CallId::random(),
            job: self.job.clone(),
            tool: self.tool.clone().unwrap_or_default(),
            lost: error_of(&self.lost).unwrap_or_else(|| self.lost.clone()),
            server_info: shared.runner.server_info().map(Message::from),
            ttl: asked.ttl.unwrap_or(millis(times.ttl)).clamp(1000, millis(times.longest).max(1000)),
            poll: asked.poll.unwrap_or(millis(times.poll)),
            created: unix_millis(),
        }
    }

    async fn run_round(
        &self,
        shared: &Shared,
        task: CallId,
        inbox: mpsc::Receiver<Inbound>,
        abort: CancellationToken,
    ) -> Option<Message> {
        let work = loop {
            let asked = tokio::select! {
                () = abort.cancelled() => return None,
                work = shared.store.task_work(task, self.call) => work,
            };
            match asked {
                Ok(Some(work)) => break work,
                // It was cancelled, or expired, before it came to this.
                Ok(None) => return None,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let _ = self.round.set(work.round);
        let lost = || Some(self.lost());
        let Ok(mut job) = serde_json::from_str::<Job>(&work.job) else { return lost() };
        let Ok(message) = message_of(&job.message, &work) else { return lost() };
        job.message = message;
        job.call = self.call.to_string();
        job.task = Some(TaskContext { id: task.to_string(), round: work.round });
        let (notes, said) = watch::channel(None);
        let outbox = Arc::new(TaskOutbox { notes });
        let tool = shared.runner.run(job, outbox, inbox, abort);
        tokio::select! {
            answer = tool => answer.map(|text| Box::<str>::from(text).into()),
            () = pass_on(shared, task, self.call, self.epoch, said) => None,
            // The task is not kept any longer, so nobody can ask for its result.
            () = tokio::time::sleep(Duration::from_millis(work.left)) => None,
        }
    }
}

const USED: &str = "requestState: it was used already, and this tool may not run twice with one. Ask again without \
                    requestState and inputResponses.";
const UNKNOWN_USE: &str = "The session store does not answer, so it can't be told whether this requestState was \
                           used already. The tool was not run. Try again in a few seconds; if the state is refused \
                           then, ask without requestState and inputResponses.";
const NO_SESSION_TASKS: &str =
    "This tool runs as a task only, and tasks need revision 2026-07-28 of the protocol.";
const TOO_MANY: &str = "You have too many tasks. Wait for some to end or to expire, or cancel some.";

/// Ends the task of a round that a lost worker had begun and that may not run again.
pub(super) async fn end_lost(shared: &Shared, claimed: &Claimed) {
    let error = &claimed.snapshot.order.lost;
    let end = end_of(&wrap(error), 1);
    let next = CallId::random();
    let Some(task) = claimed.snapshot.order.task else { return };
    for _ in 0..30 {
        let fence = shared.fence(claimed.snapshot.epoch);
        match shared.store.end_run(task, claimed.call, fence, &end, next, unix_millis()).await {
            Ok(Ok(view)) => return view.iter().for_each(|view| tell(shared, view)),
            Ok(Err(_)) => return,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
    // The lease runs out, and another worker does it.
}

/// Tells who listens that a task changed.
fn tell(shared: &Shared, view: &TaskView) {
    tracing::debug!(task = %view.id, status = %view.status, "a task changed");
    shared.runner.task_changed(view);
}

/// Whether the message's client knows tasks.
fn declares(job: &Job) -> bool {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: Meta<'a>,
    }
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities")]
        capabilities: &'a RawValue,
    }
    serde_json::from_str::<Request<'_>>(job.message.get())
        .is_ok_and(|request| declared(Some(request.params.meta.capabilities)))
}

/// An error as the answer to the job's request.
fn refusal(job: &Job, error_code: i32, message: &str) -> Message {
    let error = if error_code == code::MISSING_CLIENT_CAPABILITY {
        serde_json::json!({ "code": error_code, "message": message, "data": required() })
    } else {
        serde_json::json!({ "code": error_code, "message": message })
    };
    answer(job, Err(to_raw_value(&error).unwrap_or_default()))
}

/// A JSON-RPC answer to the job's request.
fn answer(job: &Job, outcome: Result<Box<RawValue>, Box<RawValue>>) -> Message {
    let id = jsonrpc::Request::read(&job.message)
        .ok()
        .and_then(|request| request.id)
        .map_or("null", RawValue::get);
    match outcome {
        Ok(result) => jsonrpc::result(id, result).into(),
        Err(error) => jsonrpc::error(id, error).into(),
    }
}

/// A JSON-RPC answer of an error object. A round has no id of its own.
fn wrap(error: &str) -> Message {
    jsonrpc::error("null", error).into()
}

/// What a round's tool sends out: nobody gets it, but the text of its progress becomes the task's note.
struct TaskOutbox {
    notes: watch::Sender<Option<String>>,
}

impl Outbox for TaskOutbox {
    fn emit(&self, message: Emission) -> Result<(), Closed> {
        match message {
            Emission::Notification(text) => {
                if let Some(note) = note(&text) {
                    self.notes.send_replace(Some(note));
                }
                Ok(())
            }
            // Nobody is connected.
            Emission::HangUp => Ok(()),
            // A task asks by its result.
            Emission::Request { .. } => Err(Closed),
        }
    }
}

/// What a progress notification says for people.
fn note(notification: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Notification<'a> {
        #[serde(borrow)]
        method: Cow<'a, str>,
        params: Params,
    }
    #[derive(Deserialize)]
    struct Params {
        #[serde(default)]
        progress: Option<f64>,
        #[serde(default)]
        total: Option<f64>,
        #[serde(default)]
        message: Option<String>,
    }
    let Notification { method, params } = serde_json::from_str(notification.get()).ok()?;
    if method != "notifications/progress" {
        return None;
    }
    match (params.message, params.progress, params.total) {
        (Some(message), ..) => Some(clip(&message)),
        (None, Some(progress), Some(total)) => Some(format!("{progress} of {total}")),
        _ => None,
    }
}

/// Writes notes into the task's record, the latest of each second. Never ends.
async fn pass_on(
    shared: &Shared,
    task: CallId,
    run: CallId,
    epoch: u32,
    mut said: watch::Receiver<Option<String>>,
) {
    loop {
        if said.changed().await.is_err() {
            return std::future::pending().await;
        }
        let note = said.borrow_and_update().clone();
        if let Some(note) = note
            && let Ok(Some(view)) =
                shared.store.note_task(task, run, shared.fence(epoch), &note, unix_millis()).await
        {
            tell(shared, &view);
        }
        tokio::time::sleep(NOTE_EVERY).await;
    }
}
