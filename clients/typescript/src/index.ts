// Calls a Mesophyll master's internal API: plain calls, and the stream of events.
//
//     const client = new Client();
//     await client.dispatch("guild:123", "MESSAGE_CREATE", { content: "hello" });
//
// docs/clients.md shows the rest.

export { Client, type ClientOptions } from "./client.js";
export { mint, type EndpointOptions } from "./endpoint.js";
export { MesophyllError } from "./errors.js";
export * from "./operations.js";
export { Stream, type EventOptions, type StreamOptions } from "./stream.js";
export * from "./values.js";
