import { isIP } from 'node:net';
import { createParamDecorator, type ExecutionContext } from '@nestjs/common';

/** The part of Fastify's request that says where it comes from. */
export interface Origin {
  readonly ip: string;
  /**
   * Only with ROWMQ_TRUSTED_PROXIES: the peer, then the addresses of `X-Forwarded-For` from its end
   * up to the first that is no trusted proxy.
   */
  readonly ips?: string[] | undefined;
}

/** A socket of IPv6 shows an IPv4 address as `::ffff:10.0.3.17`. */
const MAPPED = /^::ffff:(?=\d+\.)/i;
/** Some balancers add the client's port. */
const WITH_PORT = /^(?:\[(?<v6>[^\]]*)\]|(?<v4>\d+\.\d+\.\d+\.\d+))(?::\d+)?$/;

/**
 * The address of a request's client: that of the connection, or what a trusted proxy says. A text
 * that is no address does not count, so that nobody writes one into the audit or the log.
 */
export function addressOf({ ip, ips }: Origin): string {
  const told = (ips ?? [ip]).map(bare);
  return told.findLast((address) => isIP(address) !== 0) ?? '';
}

/** Injects {@link addressOf} the request. */
export const ClientAddress = createParamDecorator((_: unknown, context: ExecutionContext): string =>
  addressOf(context.switchToHttp().getRequest<Origin>()),
);

/** An address without its port. */
function bare(address: string | undefined): string {
  const { v4, v6 } = WITH_PORT.exec(address ?? '')?.groups ?? {};
  return (v4 ?? v6 ?? address ?? '').replace(MAPPED, '');
}
