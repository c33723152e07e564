//! `demo`: a story on the real thing. The broker is a child process, the services are TCP clients; the built-in gateway
//! sends to a simulated Graph API, and the customer comes in as signed webhooks. The broker is killed under way, and every
//! acknowledgement is checked after.
//!
//! # Layout
//! - `stage`: the directory, the configuration, the broker's process
//! - `cast`: the services, and what they have seen · `whatsapp`: the simulated Graph API and the phones behind it
//! - `story`: the chapters, each with what must come of it · `under_way`: the load while the broker is killed
//! - `words`: requests and deliveries in few words
//! - `screen`: what is printed
//!
//! **Invariant:** nothing is taken for granted: each chapter checks what every service saw and what every answer said,
//! and the first difference from the rules ends the story with an error.

mod cast;
mod screen;
mod stage;
mod story;
mod under_way;
mod whatsapp;
mod words;

use std::path::PathBuf;

use clap::Args;

use self::cast::Cast;
use self::screen::Screen;
use self::stage::Stage;
use super::ending::{Ending, Endings};
use super::{Failure, Outcome, block_on};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Play the story and exit: 0 if all was as it must be.
    #[arg(long)]
    once: bool,
    /// Leave the store there; else it is removed at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    block_on(async {
        let screen = Screen::new();
        let mut endings = Endings::new()?;
        let mut stage = Stage::set(arguments.data_dir.clone()).await.map_err(Failure::io)?;
        let played = tokio::select! {
            played = play(&screen, &mut stage, arguments.once) => played,
            ending = endings.next() => match ending {
                // Whoever had it stay open ends it so.
                Ending::Interrupted if !arguments.once => Ok(()),
                _ => Err(anyhow::anyhow!("ended before its end")),
            },
        };
        let ended = stage.end().await;
        if let Err(error) = &played {
            screen.failed(error, &stage.log_tail());
        }
        played.map_err(Failure::failed)?;
        ended.map_err(Failure::failed)
    })
}

async fn play(screen: &Screen, stage: &mut Stage, once: bool) -> anyhow::Result<()> {
    screen.opening(stage);
    stage.whatsapp.switch_phones_on();
    let mut cast = Cast::gather(stage).await?;
    story::play(screen, stage, &mut cast).await?;
    screen.played(stage);
    if !once {
        story::settle(&mut cast).await?;
        stage.whatsapp.let_customers_answer();
        screen.invite(stage);
        story::stay_open(screen, &mut cast).await?;
    }
    Ok(())
}
