"""A Celery application whose broker is RowMQ. `tasks.py COUNT` sends so many tasks."""

import os
import sys

from celery import Celery

app = Celery('tasks', broker=os.environ['CELERY_URL'])
app.conf.update(
    broker_transport_options={
        'region': os.environ['AWS_DEFAULT_REGION'],
        'is_secure': False,
        'visibility_timeout': 10,
        'wait_time_seconds': 1,
    },
    task_acks_late=True,
    task_default_queue=os.environ['CELERY_QUEUE'],
    task_ignore_result=True,
    worker_prefetch_multiplier=10,
)


@app.task(bind=True, max_retries=3, name='handle')
def handle(self, number):
    """Every tenth task fails at first, and is retried."""
    if number % 10 == 0 and self.request.retries == 0:
        raise self.retry(countdown=0)
    with open(os.environ['CELERY_DONE'], 'a', encoding='ascii') as done:
        done.write(f'{number}\n')


if __name__ == '__main__':
    for count in range(int(sys.argv[1])):
        handle.delay(count)
