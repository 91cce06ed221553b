//! One binary for a laptop and for the cloud: the connection string alone selects the kind of login.
//!
//! ```sh
//! With a password: a database on this machine.
//! DATABASE_URL=postgres://app:secret@localhost/app cargo run --example local_and_cloud
//! Without one: a token, with the credentials of AWS's default chain.
//! DATABASE_URL=postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//!     cargo run --example local_and_cloud
//! ```

use std::error::Error;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_rds_iam::PgConnectionManager;

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let manager = PgConnectionManager::new(&url)?;
    // Present only if tokens are signed.
    let login = match manager.endpoint() {
        Some(_) => "a token",
        None => "a password",
    };
    let pool = manager.into_pool()?;
    let user = diesel::select(diesel::dsl::sql::<Text>("current_user::text"));
    let user: String = user.get_result(&mut pool.get()?)?;
    println!("logged in as {user} with {login}");
    Ok(())
}
