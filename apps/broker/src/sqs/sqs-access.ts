import { Inject, Injectable } from '@nestjs/common';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { ANYBODY, type Caller } from '../http/caller.js';
import { SqsError } from './sqs-error.js';

/** The signer of a request. */
export interface Signer {
  caller: Caller;
  accessKey: string | undefined;
}

/** Decides who may call. */
@Injectable()
export class SqsAccess {
  constructor(@Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'needsKeys'>) {}

  check(): Signer {
    if (this.config.needsKeys)
      throw new SqsError('InvalidClientTokenId', 'The security token included in the request is invalid.');
    return { caller: ANYBODY, accessKey: undefined };
  }
}
