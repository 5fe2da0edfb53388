// C-STORE and C-ECHO as SCU, on DCMTK's association and DIMSE calls.
//
// Not DcmSCU: the socket must be ours for a moment. DCMTK leaves Nagle's
// algorithm on and writes each PDU in two pieces, so without TCP_NODELAY every
// object waits for the peer's delayed acknowledgement (40 ms).
#include "dicom/scu.h"

#include "dicom/fence.hh"

#include <dcmtk/dcmdata/dcdeftag.h>
#include <dcmtk/dcmdata/dcfilefo.h>
#include <dcmtk/dcmdata/dcuid.h>
#include <dcmtk/dcmnet/assoc.h>
#include <dcmtk/dcmnet/dcmlayer.h>
#include <dcmtk/dcmnet/dcmtrans.h>
#include <dcmtk/dcmnet/dimse.h>
#include <dcmtk/dcmnet/dul.h>
#include <dcmtk/dcmnet/lst.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"

namespace
{

// 128 KiB: the largest PDU that DCMTK's own tools use.
const long max_pdu_bytes = 131072;
const int max_contexts = 128; // PS3.8: odd IDs 1..255

class Layer : public DcmTransportLayer
{
  public:
    DcmTransportConnection *createConnection(DcmNativeSocketType fd, OFBool) override
    {
        int on = 1;

        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        return new DcmTCPConnection(fd);
    }
};

hp_code code_of_network(const OFCondition &cond)
{
    if (cond.good())
        return HP_OK;
    if (cond == DIMSE_NODATAAVAILABLE || cond == DUL_READTIMEOUT)
        return HP_E_TIMEOUT;
    if (cond == DUL_PEERABORTEDASSOCIATION || cond == DUL_PEERREQUESTEDRELEASE)
        return HP_E_ABORTED;
    if (cond == EC_MemoryExhausted)
        return HP_E_NO_MEMORY;
    return HP_E_CONNECT;
}

const char *words_of(hp_code code)
{
    switch (code) {
    case HP_E_TIMEOUT:
        return "no answer in time";
    case HP_E_ABORTED:
        return "the peer aborted the association";
    case HP_E_CONNECT:
        return "connection lost";
    default:
        return hp_code_text(code);
    }
}

const char *reject_reason(const T_ASC_RejectParameters &r)
{
    switch (r.reason) {
    case ASC_REASON_SU_APPCONTEXTNAMENOTSUPPORTED:
        return "application context not supported";
    case ASC_REASON_SU_CALLINGAETITLENOTRECOGNIZED:
        return "it does not know our AE title";
    case ASC_REASON_SU_CALLEDAETITLENOTRECOGNIZED:
        return "it does not answer to that AE title";
    case ASC_REASON_SP_ACSE_PROTOCOLVERSIONNOTSUPPORTED:
        return "protocol version";
    case ASC_REASON_SP_PRES_TEMPORARYCONGESTION:
        return "temporary congestion";
    case ASC_REASON_SP_PRES_LOCALLIMITEXCEEDED:
        return "its limit is reached";
    default:
        return "no reason given";
    }
}

// One association, held open between construction and destruction.
class Association
{
    Layer layer;
    T_ASC_Network *net = nullptr;
    T_ASC_Association *assoc = nullptr;

  public:
    Association() = default;
    Association(const Association &) = delete;
    Association &operator=(const Association &) = delete;
    ~Association()
    {
        if (assoc != nullptr) {
            ASC_abortAssociation(assoc);
            ASC_destroyAssociation(&assoc);
        }
        if (net != nullptr)
            ASC_dropNetwork(&net);
    }

    T_ASC_Association *get() const { return assoc; }

    hp_code open(const hp_peer *peer, const std::vector<const char *> &classes,
                 hp_error *reterr);

    // The polite end; after an error the destructor aborts instead.
    void release()
    {
        ASC_releaseAssociation(assoc);
        ASC_destroyAssociation(&assoc);
        assoc = nullptr;
    }
};

hp_code say_rejected(T_ASC_Parameters *params, const hp_peer *peer, hp_error *reterr)
{
    T_ASC_RejectParameters r;
    bool for_good;

    if (ASC_getRejectParameters(params, &r).bad())
        return hp_fail(reterr, HP_E_REJECTED, "%s rejected the association", peer->name);
    for_good = r.result == ASC_RESULT_REJECTEDPERMANENT;
    return hp_fail(reterr, for_good ? HP_E_REFUSED : HP_E_REJECTED,
                   "%s rejected the association%s: %s", peer->name,
                   for_good ? " for good" : "", reject_reason(r));
}

hp_code Association::open(const hp_peer *peer, const std::vector<const char *> &classes,
                          hp_error *reterr)
{
    // Objects are written as Explicit LE; DCMTK converts for a peer that only
    // has the default syntax.
    const char *syntaxes[] = {UID_LittleEndianExplicitTransferSyntax,
                              UID_LittleEndianImplicitTransferSyntax};
    const int timeout_s = peer->timeout_s > 0 ? peer->timeout_s : 30;
    T_ASC_Parameters *params = nullptr;
    char called[160];
    OFCondition cond;

    dcmConnectionTimeout.set(timeout_s);
    dcmSocketSendTimeout.set(timeout_s);
    dcmSocketReceiveTimeout.set(timeout_s);
    cond = ASC_initializeNetwork(NET_REQUESTOR, 0, timeout_s, &net);
    if (cond.good())
        cond = ASC_createAssociationParameters(&params, max_pdu_bytes);
    if (cond.bad())
        return hp_fail(reterr, HP_E_NO_MEMORY, "preparing an association");
    ASC_setTransportLayer(net, &layer, 0);
    ASC_setAPTitles(params, peer->calling_ae, peer->ae_title, nullptr);
    std::snprintf(called, sizeof called, "%s:%d", peer->host, peer->port);
    ASC_setPresentationAddresses(params, "localhost", called);
    for (size_t i = 0; i < classes.size() && cond.good(); i++)
        cond = ASC_addPresentationContext(params, static_cast<Uint8>(2 * i + 1),
                                          classes[i], syntaxes, 2);
    if (cond.bad()) {
        ASC_destroyAssociationParameters(&params);
        return hp_fail(reterr, HP_E_LIMIT, "proposing an association");
    }
    cond = ASC_requestAssociation(net, params, &assoc);
    if (cond == DUL_ASSOCIATIONREJECTED)
        return say_rejected(params, peer, reterr);
    if (cond.bad()) {
        hp_code code = code_of_network(cond);

        if (assoc == nullptr)
            ASC_destroyAssociationParameters(&params);
        return hp_fail(reterr, code, "%s at %s: %s", peer->name, called,
                       code == HP_E_CONNECT ? "no connection" : words_of(code));
    }
    return HP_OK;
}

void settle(hp_send_item *item, hp_code code, unsigned status, const char *words)
{
    item->code = code;
    item->status = static_cast<uint16_t>(status);
    std::snprintf(item->words, sizeof item->words, "%.159s", words);
}

// Why the peer did not take the class of an item. Only "not supported" is for
// good; a context refused without a reason may be taken tomorrow.
void settle_not_taken(hp_send_item *item, T_ASC_Association *assoc)
{
    hp_code code = HP_E_REFUSED;

    // ASC_ functions show what was asked only; the answers stand in DUL's list.
    LST_HEAD **answers = &assoc->params->DULparams.acceptedPresentationContext;
    auto *pc = *answers != nullptr
                   ? static_cast<DUL_PRESENTATIONCONTEXT *>(LST_Head(answers))
                   : nullptr;

    if (pc != nullptr)
        LST_Position(answers, pc);
    for (; pc != nullptr; pc = static_cast<DUL_PRESENTATIONCONTEXT *>(LST_Next(answers)))
        if (std::strcmp(pc->abstractSyntax, item->sop_class.text) == 0 &&
            (pc->result == DUL_PRESENTATION_REJECT_USER ||
             pc->result == DUL_PRESENTATION_REJECT_NOREASON))
            code = HP_E_REJECTED;
    settle(item, code, HP_SCU_NO_STATUS, "not accepted by the peer");
}

const char *words_of_status(uint16_t status)
{
    if (status == 0x0000)
        return "stored";
    if (status == 0x0111)
        return "the peer has it already";
    switch (hp_scu_status_code(status)) {
    case HP_OK:
        return "stored, with a warning";
    case HP_E_REFUSED:
        return "the peer refuses this object";
    default:
        return status >> 8 == 0xA7 ? "the peer is out of resources"
                                   : "the peer could not store it";
    }
}

// Loads and sends one item. False: the association is gone.
bool send_one(T_ASC_Association *assoc, hp_send_item *item, int timeout_s)
{
    DcmFileFormat file;
    T_DIMSE_C_StoreRQ request;
    T_DIMSE_C_StoreRSP response;
    DcmDataset *detail = nullptr;
    T_ASC_PresentationContextID id =
        ASC_findAcceptedPresentationContextID(assoc, item->sop_class.text);

    if (id == 0) {
        settle_not_taken(item, assoc);
        return true;
    }
    OFCondition cond = file.loadFile(item->path);
    if (cond.bad()) {
        settle(item, hp::code_of(cond), HP_SCU_NO_STATUS,
               "the object's file cannot be read");
        return true;
    }
    std::memset(&request, 0, sizeof request);
    std::memset(&response, 0, sizeof response);
    request.MessageID = assoc->nextMsgID++;
    std::snprintf(request.AffectedSOPClassUID, sizeof request.AffectedSOPClassUID, "%s",
                  item->sop_class.text);
    std::snprintf(request.AffectedSOPInstanceUID, sizeof request.AffectedSOPInstanceUID,
                  "%s", item->sop_instance.text);
    request.DataSetType = DIMSE_DATASET_PRESENT;
    request.Priority = DIMSE_PRIORITY_MEDIUM;
    cond = DIMSE_storeUser(assoc, id, &request, nullptr, file.getDataset(), nullptr,
                           nullptr, DIMSE_NONBLOCKING, timeout_s, &response, &detail);
    delete detail;
    if (cond.bad()) {
        hp_code code = code_of_network(cond);

        settle(item, code, HP_SCU_NO_STATUS, words_of(code));
        return false;
    }
    settle(item, hp_scu_status_code(response.DimseStatus), response.DimseStatus,
           words_of_status(response.DimseStatus));
    return true;
}

std::vector<const char *> classes_of(const hp_send_item *items, int count)
{
    std::vector<const char *> classes;

    for (int i = 0; i < count; i++) {
        bool known = false;

        for (const char *c : classes)
            known = known || std::strcmp(c, items[i].sop_class.text) == 0;
        if (!known && classes.size() < max_contexts)
            classes.push_back(items[i].sop_class.text);
    }
    return classes;
}

// The caller's callback and how many items it has heard of.
struct Answers {
    hp_scu_answer_cb on_answer;
    void *payload;
    int told = 0;

    void tell(const hp_send_item *item, bool reached)
    {
        told++;
        if (on_answer != nullptr)
            on_answer(item, reached, payload);
    }
};

hp_code send_all(const hp_peer *peer, hp_send_item *items, int count, Answers &answers,
                 hp_error *reterr)
{
    Association a;
    bool held = true;
    hp_code code = a.open(peer, classes_of(items, count), reterr);

    if (code != HP_OK)
        return code;
    for (int i = 0; i < count; i++) {
        if (held)
            held =
                send_one(a.get(), &items[i], peer->timeout_s > 0 ? peer->timeout_s : 30);
        else // the rest shares the fate of the one on which the association broke
            settle(&items[i], items[i - 1].code, HP_SCU_NO_STATUS,
                   "the association broke before");
        answers.tell(&items[i], held);
    }
    if (held)
        a.release();
    return HP_OK;
}

} // namespace

hp_code hp_scu_status_code(uint16_t status)
{
    switch (status) {
    case 0x0000:
    case 0x0001: // attribute coercion and the like: stored
    case 0x0107:
    case 0x0111:
    case 0x0116:
        return HP_OK;
    case 0x0122:
    case 0x0124:
        return HP_E_REFUSED;
    default:
        break;
    }
    switch (status >> 12) {
    case 0xB:
        return HP_OK;
    case 0xC:
        return HP_E_REFUSED;
    default:
        return status >> 8 == 0xA9 ? HP_E_REFUSED : HP_E_REJECTED;
    }
}

hp_code hp_scu_send(const hp_peer *peer, hp_send_item *items, int count,
                    hp_scu_answer_cb on_answer, void *payload, hp_error *reterr)
{
    hp_error e = HP_ERROR_INIT;
    Answers answers{on_answer, payload};

    hp::silence_dcmtk();
    for (int i = 0; i < count; i++)
        settle(&items[i], HP_E_INTERNAL, HP_SCU_NO_STATUS, "not tried");
    if (count <= 0)
        return HP_OK;
    hp_code code =
        hp::fenced(&e, [&]() { return send_all(peer, items, count, answers, &e); });
    if (code == HP_OK)
        return HP_OK;
    for (int i = answers.told; i < count; i++) {
        settle(&items[i], code, HP_SCU_NO_STATUS, e.msg);
        answers.tell(&items[i], false);
    }
    return hp_fail(reterr, code, "%s", e.msg);
}

hp_code hp_scu_echo(const hp_peer *peer, double *ret_ms, hp_error *reterr)
{
    hp::silence_dcmtk();
    return hp::fenced(reterr, [&]() -> hp_code {
        const int64_t before = hp_clock_mono_ms();
        Association a;
        DIC_US status = 0;
        DcmDataset *detail = nullptr;
        hp_code code = a.open(peer, {UID_VerificationSOPClass}, reterr);

        if (code != HP_OK)
            return code;
        if (ASC_findAcceptedPresentationContextID(a.get(), UID_VerificationSOPClass) == 0)
            return hp_fail(reterr, HP_E_REFUSED, "%s does not take C-ECHO", peer->name);
        OFCondition cond =
            DIMSE_echoUser(a.get(), a.get()->nextMsgID++, DIMSE_NONBLOCKING,
                           peer->timeout_s > 0 ? peer->timeout_s : 30, &status, &detail);
        delete detail;
        if (cond.bad()) {
            code = code_of_network(cond);
            return hp_fail(reterr, code, "%s: %s", peer->name, words_of(code));
        }
        a.release();
        if (status != 0)
            return hp_fail(reterr, HP_E_REJECTED, "%s answered C-ECHO with %04X",
                           peer->name, status);
        *ret_ms = static_cast<double>(hp_clock_mono_ms() - before);
        return HP_OK;
    });
}
