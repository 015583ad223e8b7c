import { Controller, Get, Headers, NotFoundException, Param, Res } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import { CallNeeds } from '../http/needs.js';
import { dashboardFile, type FileName, isFileName } from './dashboard-files.js';

interface Reply {
  status(code: number): unknown;
  header(name: string, value: string): unknown;
}

const TAKES_GZIP = /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/;

/** Scripts, styles and requests come from and go to the broker only, and nothing is inline. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

const HEADERS = {
  'cache-control': 'no-cache',
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
  'referrer-policy': 'no-referrer',
  vary: 'accept-encoding',
  'x-content-type-options': 'nosniff',
};

/** The dashboard: its files hold no data, so they need no key. */
@ApiExcludeController()
@Controller('dashboard')
export class DashboardController {
  @Get()
  @CallNeeds({ scope: 'none' })
  page(
    @Headers() headers: Record<string, string | undefined>,
    @Res({ passthrough: true }) reply: Reply,
  ): Buffer | string | undefined {
    return send('index.html', headers, reply);
  }

  @Get(':file')
  @CallNeeds({ scope: 'none' })
  file(
    @Param('file') name: string,
    @Headers() headers: Record<string, string | undefined>,
    @Res({ passthrough: true }) reply: Reply,
  ): Buffer | string | undefined {
    if (!isFileName(name)) throw new NotFoundException();
    return send(name, headers, reply);
  }
}

function send(
  name: FileName,
  { 'if-none-match': known, 'accept-encoding': accepted = '' }: Record<string, string | undefined>,
  reply: Reply,
): Buffer | string | undefined {
  const file = dashboardFile(name);
  for (const [header, value] of Object.entries(HEADERS)) reply.header(header, value);
  if (file === undefined) {
    reply.status(503);
    reply.header('content-type', 'text/plain; charset=utf-8');
    return 'The dashboard is not in this installation. Run `npm run build`, and restart the broker.\n';
  }
  reply.header('etag', file.etag);
  if (known === file.etag) {
    reply.status(304);
    return undefined;
  }
  reply.header('content-type', file.type);
  if (!TAKES_GZIP.test(accepted)) return file.content;
  reply.header('content-encoding', 'gzip');
  return file.zipped;
}
