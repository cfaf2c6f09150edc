//! Tasks in Redis.

use std::collections::BTreeMap;

use async_trait::async_trait;
use redis::{Script, ScriptInvocation, Value};

use super::super::{Result, TaskBegin, TaskReply, Tasks, Unavailable};
use super::scripts::assemble;
use super::{RedisStore, codec};
use crate::call::{
    Fence, Gone, Message,
    task::{NewTask, Status, TaskEnd, TaskView, TaskWork},
};
use crate::id::CallId;

/// The scripts of tasks.
pub(super) struct TaskScripts {
    begin: Script,
    work: Script,
    note: Script,
    end: Script,
    get: Script,
    answer: Script,
    cancel: Script,
}

macro_rules! script {
    ($head:expr, $name:literal) => {
        Script::new(&assemble(
            &format!("{}\n{}", $head, include_str!("../lua/task_prelude.lua")),
            include_str!(concat!("../lua/task_", $name, ".lua")),
        ))
    };
}

impl TaskScripts {
    /// `head`: what all scripts begin with.
    pub(super) fn new(head: &str) -> Self {
        Self {
            begin: script!(head, "begin"),
            work: script!(head, "work"),
            note: script!(head, "note"),
            end: script!(head, "end"),
            get: script!(head, "get"),
            answer: script!(head, "answer"),
            cancel: script!(head, "cancel"),
        }
    }
}

fn nonsense() -> Unavailable {
    Unavailable("unexpected task in Redis".to_owned())
}

/// As `optional()` in `task_prelude.lua` reads it.
fn add_optional(invocation: &mut ScriptInvocation<'_>, text: Option<&str>) {
    match text {
        Some(text) => invocation.arg("1").arg(text),
        None => invocation.arg("0"),
    };
}

fn texts(value: Value) -> Result<BTreeMap<String, Message>> {
    Ok(codec::map(value)?.into_iter().map(|(name, text)| (name, text.into())).collect())
}

fn optional(value: Value) -> Result<Option<String>> {
    if value == Value::Nil { Ok(None) } else { codec::text(value).map(Some) }
}

/// As `view()` in `task_prelude.lua` returns it.
fn view(value: Value) -> Result<TaskView> {
    let [id, status, note, created, updated, ttl, poll, outcome, info, asks] = codec::fixed(value)?;
    Ok(TaskView {
        id: codec::text(id)?.parse().map_err(|_| nonsense())?,
        status: Status::parse(&codec::text(status)?).ok_or_else(nonsense)?,
        note: optional(note)?,
        created: codec::number(created)?,
        updated: codec::number(updated)?,
        ttl: codec::number(ttl)?,
        poll: codec::number(poll)?,
        asks: texts(asks)?,
        outcome: optional(outcome)?.map(Message::from),
        server_info: optional(info)?.map(Message::from),
    })
}

fn maybe_view(value: Value) -> Result<Option<TaskView>> {
    if value == Value::Nil { Ok(None) } else { view(value).map(Some) }
}

fn reply(value: Value) -> Result<Option<TaskReply>> {
    if value == Value::Nil {
        return Ok(None);
    }
    let [changed, of] = codec::fixed(value)?;
    Ok(Some(TaskReply { view: view(of)?, changed: codec::number::<u8>(changed)? == 1 }))
}

fn task_begin(value: Value) -> Result<std::result::Result<TaskBegin, Gone>> {
    if matches!(&value, Value::BulkString(text) if text == b"full") {
        return Ok(Ok(TaskBegin::Full));
    }
    let [kind, state] = match codec::owned(value)? {
        Ok(value) => codec::fixed(value)?,
        Err(gone) => return Ok(Err(gone)),
    };
    let state = match codec::view(state)? {
        Ok(state) => state,
        Err(gone) => return Ok(Err(gone)),
    };
    match codec::text(kind)?.as_str() {
        "created" => Ok(Ok(TaskBegin::Created(state))),
        "nobody" => Ok(Ok(TaskBegin::Nobody(state))),
        _ => Err(nonsense()),
    }
}

#[async_trait]
impl Tasks for RedisStore {
    async fn begin_task(
        &self,
        call: CallId,
        fence: Fence<'_>,
        task: &NewTask,
        out: &Message,
    ) -> Result<std::result::Result<TaskBegin, Gone>> {
        let reply = self
            .invoke(&self.tasks.begin, |invocation| {
                invocation.arg(call.to_string()).arg(fence.worker).arg(fence.epoch).arg(&**out);
                invocation.arg(task.run.to_string());
                invocation.arg(&*task.job).arg(&task.tool).arg(&*task.lost);
                invocation.arg(task.ttl).arg(task.poll).arg(task.created);
                add_optional(invocation, task.server_info.as_deref());
            })
            .await?;
        task_begin(reply)
    }

    async fn task_work(&self, task: CallId, run: CallId) -> Result<Option<TaskWork>> {
        let reply = self.call(&self.tasks.work, task, &[&run.to_string()]).await?;
        if reply == Value::Nil {
            return Ok(None);
        }
        let [job, round, answers, state, left] = codec::fixed(reply)?;
        Ok(Some(TaskWork {
            job: codec::text(job)?.into(),
            round: codec::number(round)?,
            answers: texts(answers)?,
            state: optional(state)?.map(Message::from),
            left: codec::number(left)?,
        }))
    }

    async fn note_task(
        &self,
        task: CallId,
        run: CallId,
        fence: Fence<'_>,
        note: &str,
        at: u64,
    ) -> Result<Option<TaskView>> {
        let args = [&*run.to_string(), fence.worker, &*fence.epoch.to_string(), note, &*at.to_string()];
        maybe_view(self.call(&self.tasks.note, task, &args).await?)
    }

    async fn end_run(
        &self,
        task: CallId,
        run: CallId,
        fence: Fence<'_>,
        end: &TaskEnd,
        next: CallId,
        at: u64,
    ) -> Result<std::result::Result<Option<TaskView>, Gone>> {
        let reply = self
            .invoke(&self.tasks.end, |invocation| {
                invocation.arg(task.to_string()).arg(run.to_string()).arg(fence.worker).arg(fence.epoch);
                invocation.arg(next.to_string()).arg(at);
                match end {
                    TaskEnd::Asks { asks, state } => {
                        invocation.arg("asks");
                        add_optional(invocation, state.as_deref());
                        for (key, ask) in asks {
                            invocation.arg(key).arg(&**ask);
                        }
                    }
                    TaskEnd::Completed(result) => {
                        invocation.arg("completed").arg(&**result).arg("0");
                    }
                    TaskEnd::Failed { error, note } => {
                        invocation.arg("failed").arg(&**error);
                        add_optional(invocation, note.as_deref());
                    }
                }
            })
            .await?;
        match codec::owned(reply)? {
            Ok(Value::Array(fields)) if fields.is_empty() => Ok(Ok(None)),
            Ok(fields) => view(fields).map(|view| Ok(Some(view))),
            Err(gone) => Ok(Err(gone)),
        }
    }

    async fn task(&self, task: CallId, principal: &str, at: u64) -> Result<Option<TaskView>> {
        maybe_view(self.call(&self.tasks.get, task, &[principal, &at.to_string()]).await?)
    }

    async fn answer_task(
        &self,
        task: CallId,
        principal: &str,
        answers: &[(String, Message)],
        next: CallId,
        at: u64,
    ) -> Result<Option<TaskReply>> {
        let value = self
            .invoke(&self.tasks.answer, |invocation| {
                invocation.arg(task.to_string()).arg(principal).arg(next.to_string()).arg(at);
                for (key, answer) in answers {
                    invocation.arg(key).arg(&**answer);
                }
            })
            .await?;
        reply(value)
    }

    async fn cancel_task(&self, task: CallId, principal: &str, at: u64) -> Result<Option<TaskReply>> {
        reply(self.call(&self.tasks.cancel, task, &[principal, &at.to_string()]).await?)
    }
}
