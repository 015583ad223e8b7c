"""Walks through SQS with boto3, and fails at the first answer that is not what AWS gives."""

import json
import os
import uuid

import boto3
from botocore.exceptions import ClientError

sqs = boto3.client('sqs', endpoint_url=os.environ['SQS_URL'])
name = f'python-{uuid.uuid4().hex}'


def refused(code, call, **arguments):
    """Expects an error with this code, and returns it."""
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response['Error']['Code'] == code, error.response
        assert error.response['ResponseMetadata']['HTTPStatusCode'] < 500, error.response
        return error
    raise AssertionError(f'expected {code}')


url = sqs.create_queue(QueueName=name, Attributes={'VisibilityTimeout': '45'})['QueueUrl']
assert url == f'{os.environ["SQS_URL"]}/000000000000/{name}', url
assert sqs.create_queue(QueueName=name, Attributes={'VisibilityTimeout': '45'})['QueueUrl'] == url
error = refused('QueueAlreadyExists', sqs.create_queue, QueueName=name, Attributes={'VisibilityTimeout': '46'})
assert isinstance(error, sqs.exceptions.QueueNameExists)
error = refused('AWS.SimpleQueueService.NonExistentQueue', sqs.get_queue_url, QueueName='nobody')
assert isinstance(error, sqs.exceptions.QueueDoesNotExist)
refused('InvalidAttributeName', sqs.get_queue_attributes, QueueUrl=url, AttributeNames=['Colour'])
assert 'Attributes' not in sqs.get_queue_attributes(QueueUrl=url)

body = 'héllo\r\n\t<&>"\' 😀'
attributes = {
    'text': {'DataType': 'String', 'StringValue': 'ü'},
    'number': {'DataType': 'Number.int', 'StringValue': '12'},
    'bytes': {'DataType': 'Binary', 'BinaryValue': b'\x00\xff\r\n'},
}
sent = sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes)
messages = sqs.receive_message(
    QueueUrl=url, AttributeNames=['All'], MessageAttributeNames=['All'], WaitTimeSeconds=10
)['Messages']
(message,) = messages
assert message['Body'] == body, message
assert message['MessageId'] == sent['MessageId']
assert message['MD5OfBody'] == sent['MD5OfMessageBody']
assert message['MD5OfMessageAttributes'] == sent['MD5OfMessageAttributes']
assert message['MessageAttributes'] == attributes, message
assert message['Attributes']['ApproximateReceiveCount'] == '1'
assert len(message['Attributes']['SentTimestamp']) == 13

handle = message['ReceiptHandle']
sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
again = sqs.receive_message(QueueUrl=url, AttributeNames=['All'], WaitTimeSeconds=10)['Messages'][0]
assert again['Attributes']['ApproximateReceiveCount'] == '2'
first = 'ApproximateFirstReceiveTimestamp'
assert again['Attributes'][first] == message['Attributes'][first]
assert again['ReceiptHandle'] != handle
for _ in range(2):
    sqs.delete_message(QueueUrl=url, ReceiptHandle=again['ReceiptHandle'])
refused('ReceiptHandleIsInvalid', sqs.delete_message, QueueUrl=url, ReceiptHandle='garbage')
assert 'Messages' not in sqs.receive_message(QueueUrl=url)

refused('InvalidMessageContents', sqs.send_message, QueueUrl=url, MessageBody='\x00')
batch = sqs.send_message_batch(
    QueueUrl=url,
    Entries=[{'Id': 'good', 'MessageBody': 'x'}, {'Id': 'bad', 'MessageBody': '\x01'}],
)
assert [entry['Id'] for entry in batch['Successful']] == ['good']
assert [(entry['Id'], entry['Code']) for entry in batch['Failed']] == [('bad', 'InvalidMessageContents')]
refused('AWS.SimpleQueueService.EmptyBatchRequest', sqs.send_message_batch, QueueUrl=url, Entries=[])
sqs.purge_queue(QueueUrl=url)
counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=['ApproximateNumberOfMessages'])['Attributes']
assert counts == {'ApproximateNumberOfMessages': '0'}, counts

sqs.tag_queue(QueueUrl=url, Tags={'team': 'shop', 'stage': 'test'})
sqs.untag_queue(QueueUrl=url, TagKeys=['stage', 'nothing'])
assert sqs.list_queue_tags(QueueUrl=url)['Tags'] == {'team': 'shop'}

fifo = sqs.create_queue(
    QueueName=f'{name}.fifo', Attributes={'FifoQueue': 'True', 'ContentBasedDeduplication': 'true'}
)['QueueUrl']
refused('MissingParameter', sqs.send_message, QueueUrl=fifo, MessageBody='x')
one, other = (sqs.send_message(QueueUrl=fifo, MessageBody='x', MessageGroupId='g') for _ in range(2))
assert one['MessageId'] == other['MessageId'] and one['SequenceNumber'] == other['SequenceNumber']
assert len(one['SequenceNumber']) == 20

dead = sqs.create_queue(QueueName=f'{name}-dead')['QueueUrl']
arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
policy = json.dumps({'deadLetterTargetArn': arn, 'maxReceiveCount': '1'})
sqs.set_queue_attributes(QueueUrl=url, Attributes={'RedrivePolicy': policy, 'VisibilityTimeout': '0'})
shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=['RedrivePolicy'])['Attributes']
assert shown['RedrivePolicy'] == policy, shown
assert sqs.list_dead_letter_source_queues(QueueUrl=dead)['queueUrls'] == [url]
sqs.send_message(QueueUrl=url, MessageBody='dies')
assert len(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10)['Messages']) == 1
assert 'Messages' not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
(letter,) = sqs.receive_message(QueueUrl=dead, AttributeNames=['All'], WaitTimeSeconds=10)['Messages']
assert letter['Attributes']['ApproximateReceiveCount'] == '2', letter
assert letter['Attributes']['DeadLetterQueueSourceArn'].endswith(name)

for queue in (dead, url, fifo):
    sqs.delete_queue(QueueUrl=queue)
refused('AWS.SimpleQueueService.NonExistentQueue', sqs.receive_message, QueueUrl=url)
print('walked')
