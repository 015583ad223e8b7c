import { Body, Controller, Delete, Get, HttpCode, Inject, Post, Req, Res } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import { KEY_SCOPES, loginRequest, type LoginRequest, RowmqError, type SessionAnswer } from '@rowmq/contract';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { ANYBODY, type Caller } from '../http/caller.js';
import { addressOf, type Origin } from '../http/client-address.js';
import { CallNeeds } from '../http/needs.js';
import { VERSION } from '../http/version.js';
import { FailedAttempts } from './failed-attempts.js';
import { KnownKeys } from './known-keys.js';
import { ended, hasSession, KnownSessions, refuseForeign, type SessionRequest } from './known-sessions.js';

type Request = SessionRequest & Origin;
interface Reply {
  header(name: string, value: string): unknown;
}

/** The dashboard's login and logout. Programs send their key with every request instead. */
@ApiExcludeController()
@Controller('dashboard/session')
export class SessionController {
  constructor(
    private readonly sessions: KnownSessions,
    private readonly keys: KnownKeys,
    private readonly attempts: FailedAttempts,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'needsKeys'>,
  ) {}

  @Get()
  @CallNeeds({ scope: 'none' })
  async show(@Req() request: Request, @Res({ passthrough: true }) reply: Reply): Promise<SessionAnswer> {
    reply.header('cache-control', 'no-store');
    if (!this.config.needsKeys) return this.answer(ANYBODY);
    if (!hasSession(request)) return this.answer(null);
    this.refuseIfTooMany(request);
    try {
      return this.answer(await this.sessions.find(request));
    } catch (error) {
      if (!(error instanceof RowmqError) || error.code !== 'unauthorized') throw error;
      this.attempts.count(addressOf(request), error);
      return this.answer(null);
    }
  }

  @Post()
  @HttpCode(200)
  @CallNeeds({ scope: 'none' })
  async logIn(
    @Body({ schema: loginRequest }) { key }: LoginRequest,
    @Req() request: Request,
    @Res({ passthrough: true }) reply: Reply,
  ): Promise<SessionAnswer> {
    refuseForeign(request);
    reply.header('cache-control', 'no-store');
    if (!this.config.needsKeys) return this.answer(ANYBODY);
    this.attempts.refuseIfTooMany(addressOf(request));
    try {
      const { caller, cookie } = await this.sessions.begin(key, isSecure(request));
      reply.header('set-cookie', cookie);
      return this.answer(caller);
    } catch (error) {
      const isWrong = error instanceof RowmqError && error.code === 'unauthorized';
      throw isWrong ? this.attempts.count(addressOf(request), error) : error;
    }
  }

  @Delete()
  @HttpCode(204)
  @CallNeeds({ scope: 'none' })
  async logOut(@Req() request: Request, @Res({ passthrough: true }) reply: Reply): Promise<void> {
    refuseForeign(request);
    this.refuseIfTooMany(request);
    const { cookie, isGuess } = await this.sessions.end(request, isSecure(request));
    if (isGuess) this.attempts.count(addressOf(request), ended());
    reply.header('set-cookie', cookie);
  }

  /** A look for a session costs a statement. A known session stays usable. */
  private refuseIfTooMany(request: Request): void {
    if (!this.sessions.hasFound(request)) this.attempts.refuseIfTooMany(addressOf(request));
  }

  private answer(caller: Caller | null): SessionAnswer {
    const { needsKeys } = this.config;
    if (caller === null) return { version: VERSION, needsKey: needsKeys, rights: null };
    const isAll = caller === ANYBODY || caller === this.keys.admin;
    return {
      version: VERSION,
      needsKey: needsKeys,
      rights: {
        key: caller.name,
        scopes: isAll ? [...KEY_SCOPES] : caller.scopes.filter((scope) => scope !== 'all'),
        patterns: [...caller.patterns],
      },
    };
  }
}

/** A browser that came by HTTPS says so, also if a balancer ends the TLS. */
function isSecure({ headers }: SessionRequest): boolean {
  const { origin } = headers;
  return typeof origin === 'string' && origin.startsWith('https:');
}
