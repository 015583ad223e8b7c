/* The path of a payload into a message, for both packages that enqueue. */
export * from './encode-message.js';
export * from './payload-codec.js';
