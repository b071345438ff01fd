//! Costhelm inside another program: no server, no broker.

use std::time::Duration;

use costhelm::{Engine, bus::NewRecord, config::Config, event::Dim};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::start(Config { data_dir: "embed-data".into(), ..Config::default() }).await?;
    let event = format!(
        r#"{{"event_id": "1", "timestamp": "{}", "environment": "dev", "project_id": "docs", "agent_role": "writer",
            "model_provider": "openai", "model_name": "gpt-4o-mini", "tokens_input": 1200, "tokens_output": 300}}"#,
        costhelm::clock::now()
    );
    let topic = engine.config().topics.events.clone();
    let record = NewRecord { topic, value: Some(event.into_bytes()), ..NewRecord::default() };
    for result in engine.append(vec![record]).await {
        result?;
    }
    engine.caught_up(Duration::from_secs(10)).await;
    println!("{} USD", engine.costs(Dim::AgentRole, Duration::from_secs(3600), &[]).total.cost);
    engine.stop().await;
    Ok(())
}
