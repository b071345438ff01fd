//! `costhelm run`

use std::process::ExitCode;

use costhelm::{Engine, config::BusKind, serve::http::Server};

use super::{ConfigFile, Failure, Outcome, block_on};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub fn run(args: Args) -> Outcome {
    let config = args.config.load()?;
    block_on(async {
        let bus = match config.bus.kind {
            BusKind::Embedded => "the embedded bus".to_owned(),
            BusKind::Kafka => format!("Kafka at {}", config.bus.kafka.brokers),
        };
        let engine = Engine::start(config).await?;
        let server = Server::start(engine.clone())
            .await
            .map_err(|error| Failure::new(format!("HTTP on {}: {error}", engine.config().http.listen)));
        let server = match server {
            Ok(server) => server,
            Err(failure) => {
                engine.stop().await;
                return Err(failure);
            }
        };
        tracing::info!(
            "costhelm {}: http://{}, reading {} from {bus}, data in {}",
            env!("CARGO_PKG_VERSION"),
            server.address,
            engine.config().topics.events,
            engine.config().data_dir.display(),
        );
        let signal = wait_for_signal().await?;
        tracing::info!("{signal}: draining");
        server.stop().await;
        engine.stop().await;
        tracing::info!("stopped; everything read is committed");
        Ok(ExitCode::SUCCESS)
    })?
}

/// Waits until somebody wants the process to end, and says how.
pub async fn wait_for_signal() -> Result<&'static str, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
