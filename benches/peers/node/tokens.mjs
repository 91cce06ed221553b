// Nanoseconds that @aws-sdk/rds-signer takes for a token.
import { Signer } from "@aws-sdk/rds-signer";

const calls = Number(process.argv[2]);
const signer = new Signer({
  hostname: "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com",
  port: 5432,
  username: "app",
  region: "eu-west-1",
});
await signer.getAuthToken();
const start = performance.now();
for (let call = 0; call < calls; call += 1) await signer.getAuthToken();
const spent = performance.now() - start;
console.log(JSON.stringify({ "@aws-sdk/rds-signer": (spent / calls) * 1e6 }));
