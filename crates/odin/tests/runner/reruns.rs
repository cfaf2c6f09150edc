//! What may run twice: what the tool's annotations allow.

use std::sync::Arc;

use odin::call::Rerun;
use odin::runner::RmcpRunner;
use odin::worker::Runner;
use serde_json::json;

use super::{
    handler::Handler,
    support::{modern, run, runner},
};

fn verdicts(runner: &impl Runner) -> Vec<Rerun> {
    ["reads", "repeats", "writes", "says-nothing", "unknown"].iter().map(|name| runner.rerun(name)).collect()
}

const RIGHT: [Rerun; 5] = [Rerun::Safe, Rerun::Safe, Rerun::Unsafe, Rerun::Unsafe, Rerun::Unsafe];

#[tokio::test]
async fn annotations_decide() {
    let (runner, _) = runner();
    assert_eq!(verdicts(&*runner), RIGHT);
}

#[tokio::test]
async fn a_handler_without_get_tool_is_asked_for_its_list() {
    let mut handler = Handler::new(Arc::default());
    handler.shy = true;
    let runner = Arc::new(RmcpRunner::new(Arc::new(handler)));
    assert_eq!(verdicts(&*runner), [Rerun::Unsafe; 5]);
    runner.learn().await.unwrap();
    assert_eq!(verdicts(&*runner), RIGHT, "both pages were read");
}

#[tokio::test]
async fn what_clients_list_is_remembered() {
    let mut handler = Handler::new(Arc::default());
    handler.shy = true;
    let runner = Arc::new(RmcpRunner::new(Arc::new(handler)));
    run(&runner, modern(json!(1), "tools/list", json!({}))).await;
    assert_eq!(verdicts(&*runner)[..2], RIGHT[..2]);
}

#[tokio::test]
async fn a_handler_without_tools_can_be_asked() {
    struct Empty;
    impl rmcp::ServerHandler for Empty {}
    RmcpRunner::new(Arc::new(Empty)).learn().await.unwrap();
}
