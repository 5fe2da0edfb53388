// Structured reports on DCMTK's document tree.
//
// DCMTK 3.6.7 has no class for TID 1410, so the planar groups are built from
// content items. Spellings and order are not free: OHIF finds items by code
// meaning, takes the first NUM of a group for the region, and reads the Image
// Library unguarded; PixelMed checks the template.
#include "dicom/sr.h"

#include "dicom/report_dcmtk.hh"

#include <dcmtk/dcmdata/dcdeftag.h>
#include <dcmtk/dcmsr/dsrdoc.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/number.h"

namespace
{

using hp::check;
using T = DSRTypes;

struct Code {
    const char *value, *scheme, *meaning;
    operator DSRCodedEntryValue() const
    {
        return DSRCodedEntryValue(value, scheme, meaning);
    }
};

const Code report_title{"126000", "DCM", "Imaging Measurement Report"};
const Code language{"121049", "DCM", "Language of Content Item and Descendants"};
const Code country{"121046", "DCM", "Country of Language"};
const Code observer_type{"121005", "DCM", "Observer Type"};
const Code device{"121007", "DCM", "Device"};
const Code procedure_reported{"121058", "DCM", "Procedure reported"};
const Code image_library{"111028", "DCM", "Image Library"};
const Code image_library_group{"126200", "DCM", "Image Library Group"};
const Code modality{"121139", "DCM", "Modality"};
const Code frame_of_reference{"112227", "DCM", "Frame of Reference UID"};
const Code measurements{"126010", "DCM", "Imaging Measurements"};
const Code group{"125007", "DCM", "Measurement Group"};
const Code tracking_id{"112039", "DCM", "Tracking Identifier"};
const Code tracking_uid{"112040", "DCM", "Tracking Unique Identifier"};
const Code finding{"121071", "DCM", "Finding"};
const Code findings_heading{"121070", "DCM", "Findings"};
const Code finding_site{"363698007", "SCT", "Finding Site"};
const Code liver{"10200004", "SCT", "Liver"};
const Code lesion{"52988006", "SCT", "Lesion"};
const Code algorithm_name{"111001", "DCM", "Algorithm Name"};
const Code algorithm_version{"111003", "DCM", "Algorithm Version"};
const Code algorithm_parameters{"111002", "DCM", "Algorithm Parameters"};
const Code image_region{"111030", "DCM", "Image Region"};
const Code area{"42798000", "SCT", "Area"};
const Code long_axis{"103339001", "SCT", "Long Axis"};
const Code short_axis{"103340004", "SCT", "Short Axis"};
const Code volume{"118565006", "SCT", "Volume"};
const Code attenuation{"112031", "DCM", "Attenuation Coefficient"};
const Code derivation{"121401", "DCM", "Derivation"};
const Code mean{"373098007", "SCT", "Mean"};
const Code certainty_of_finding{"111012", "DCM", "Certainty of Finding"};
const Code certainty_of_impression{"111013", "DCM", "Certainty of Impression"};
const Code comment{"121106", "DCM", "Comment"};
const Code note_title{"AI-NOTE", "99HEPAR", "AI analysis note"};

const Code unit_mm{"mm", "UCUM", "mm"};
const Code unit_mm2{"mm2", "UCUM", "mm2"};
const Code unit_ml{"mL", "UCUM", "mL"};
const Code unit_hu{"[hnsf'U]", "UCUM", "Hounsfield unit"};
const Code unit_percent{"%", "UCUM", "%"};

// Adds children below the item it was made for, in order. Each call leaves the
// document's cursor where it found it, except below(), which moves it down
// until the returned Here is gone.
class Writer
{
    DSRDocumentTree &tree;

    DSRContentItem &add(T::E_RelationshipType rel, T::E_ValueType type, const Code &name)
    {
        check(tree.addChildContentItem(rel, type, name));
        return tree.getCurrentContentItem();
    }

  public:
    class Here
    {
        DSRDocumentTree &tree;

      public:
        explicit Here(DSRDocumentTree &t) : tree(t) {}
        ~Here() { tree.goUp(); }
        Here(const Here &) = delete;
        Here &operator=(const Here &) = delete;
    };

    explicit Writer(DSRDocumentTree &t) : tree(t) {}

    void root(const Code &title, const char *template_id)
    {
        if (tree.addContentItem(T::RT_isRoot, T::VT_Container) == 0)
            throw hp::Failed{SR_EC_CannotAddContentItem};
        check(tree.getCurrentContentItem().setConceptName(title));
        if (template_id != nullptr)
            check(tree.getCurrentContentItem().setTemplateIdentification(template_id,
                                                                         "DCMR"));
    }
    Here container(const Code &name, const char *template_id = nullptr)
    {
        DSRContentItem &item = add(T::RT_contains, T::VT_Container, name);

        if (template_id != nullptr)
            check(item.setTemplateIdentification(template_id, "DCMR"));
        return Here(tree);
    }
    Here code_below(T::E_RelationshipType rel, const Code &name,
                    const DSRCodedEntryValue &value)
    {
        check(add(rel, T::VT_Code, name).setCodeValue(value));
        return Here(tree);
    }
    void code(T::E_RelationshipType rel, const Code &name,
              const DSRCodedEntryValue &value)
    {
        code_below(rel, name, value);
    }
    void text(T::E_RelationshipType rel, const Code &name, const char *value)
    {
        char clean[2048];

        check(add(rel, T::VT_Text, name)
                  .setStringValue(hp_report__ascii(value, clean, sizeof clean)));
        tree.goUp();
    }
    void uid(T::E_RelationshipType rel, const Code &name, const char *value)
    {
        check(add(rel, T::VT_UIDRef, name).setStringValue(value));
        tree.goUp();
    }
    Here number_below(const Code &name, double value, int decimals, const Code &unit)
    {
        char digits[32];

        hp_format_double(value, decimals, digits, sizeof digits);
        check(add(T::RT_contains, T::VT_Num, name)
                  .setNumericValue(DSRNumericMeasurementValue(digits, unit)));
        return Here(tree);
    }
    void number(const Code &name, double value, int decimals, const Code &unit)
    {
        if (std::isfinite(value))
            number_below(name, value, decimals, unit);
    }
    // IMAGE items of the library and under SCOORD have no concept name.
    void image(T::E_RelationshipType rel, const hp_slice &s)
    {
        DSRImageReferenceValue ref(s.sop_class.text, s.sop_instance.text);

        if (std::strcmp(s.sop_class.text, "1.2.840.10008.5.1.4.1.1.2") != 0)
            ref.getFrameList().putString(std::to_string(s.frame + 1).c_str());
        if (tree.addContentItem(rel, T::VT_Image, T::AM_belowCurrent) == 0)
            throw hp::Failed{SR_EC_CannotAddContentItem};
        check(tree.getCurrentContentItem().setImageReference(ref));
        tree.goUp();
    }
    void polyline(T::E_RelationshipType rel, const Code *name, const double xy[10],
                  const hp_slice &s)
    {
        DSRSpatialCoordinatesValue region(T::GT_Polyline);

        for (int i = 0; i < 5; i++)
            region.getGraphicDataList().addItem(static_cast<Float32>(xy[2 * i]),
                                                static_cast<Float32>(xy[2 * i + 1]));
        if (tree.addContentItem(rel, T::VT_SCoord, T::AM_belowCurrent) == 0)
            throw hp::Failed{SR_EC_CannotAddContentItem};
        if (name != nullptr)
            check(tree.getCurrentContentItem().setConceptName(*name));
        check(tree.getCurrentContentItem().setSpatialCoordinates(region));
        image(T::RT_selectedFrom, s);
        tree.goUp();
    }
};

DSRCodedEntryValue class_code(const hp_class &c)
{
    char meaning[64];

    return DSRCodedEntryValue(c.code, c.scheme,
                              hp_report__ascii(c.meaning, meaning, sizeof meaning));
}

void observer_context(const hp_report *r, Writer &w)
{
    const T::E_RelationshipType rel = T::RT_hasObsContext;

    w.code(rel, observer_type, device);
    w.uid(rel, {"121012", "DCM", "Device Observer UID"},
          hp_result_device_uid(r->identity->installation_id).text);
    w.text(rel, {"121013", "DCM", "Device Observer Name"},
           r->node_name != nullptr && r->node_name[0] != 0 ? r->node_name : "hepar");
    w.text(rel, {"121014", "DCM", "Device Observer Manufacturer"}, "hepar project");
    w.text(rel, {"121015", "DCM", "Device Observer Model Name"}, "hepar");
    w.text(rel, {"121016", "DCM", "Device Observer Serial Number"},
           r->identity->installation_id);
}

void language_of_report(Writer &w)
{
    auto here =
        w.code_below(T::RT_hasConceptMod, language, Code{"en", "RFC5646", "English"});

    w.code(T::RT_hasConceptMod, country, Code{"US", "ISO3166_1", "United States"});
}

// One group per source series, with the key slices of every reported lesion.
void write_image_library(const hp_report *r, Writer &w, DSRDocument &doc)
{
    const hp_findings *f = r->findings;
    auto library = w.container(image_library);

    for (int p = 0; p < HP_PHASES; p++) {
        const hp_slice *seen[HP_MAX_CANDIDATES];
        int seen_count = 0;

        // A substituted phase's images stand in the group of their own phase.
        if (hp_report__shown_phase(f, static_cast<hp_phase>(p)) != p)
            continue;
        for (int n = 0, i; (i = hp_report_lesion(f, n)) >= 0; n++) {
            const hp_slice *s = hp_report__source(
                r, static_cast<hp_phase>(p), hp_report__key_slice(f, &f->candidates[i]));
            bool known = s == nullptr;

            for (int k = 0; k < seen_count; k++)
                known = known || seen[k] == s;
            if (!known)
                seen[seen_count++] = s;
        }
        if (seen_count == 0)
            continue;

        auto here = w.container(image_library_group);
        w.code(T::RT_hasAcqContext, modality, Code{"CT", "DCM", "Computed Tomography"});
        if (seen[0]->frame_of_reference.text[0] != 0)
            w.uid(T::RT_hasAcqContext, frame_of_reference,
                  seen[0]->frame_of_reference.text);
        for (int k = 0; k < seen_count; k++) {
            w.image(T::RT_contains, *seen[k]);
            check(doc.getCurrentRequestedProcedureEvidence().addItem(
                r->identity->study_uid.text, seen[k]->series.text,
                seen[k]->sop_class.text, seen[k]->sop_instance.text));
        }
    }
}

void write_algorithm(const hp_report *r, const hp_candidate *c, Writer &w)
{
    const hp_findings *f = r->findings;
    const T::E_RelationshipType rel = T::RT_hasConceptMod;
    char line[256], phases[64];

    w.text(rel, algorithm_name, "hepar");
    w.text(rel, algorithm_version, r->software_version);
    std::snprintf(line, sizeof line, "model bundle %s %s, sha256 %s", f->bundle_name,
                  f->bundle_version, f->bundle_sha256);
    w.text(rel, algorithm_parameters, line);
    hp_report__phases(f, phases, sizeof phases);
    std::snprintf(line, sizeof line, "phases used: %s", phases);
    w.text(rel, algorithm_parameters, line);
    for (int p = 0; p < HP_PHASES; p++) {
        hp_report__hu(f, c, static_cast<hp_phase>(p), line, sizeof line);
        w.text(rel, algorithm_parameters, line);
    }
    if (f->class_index >= 0) {
        std::string votes = "ensemble votes:";

        for (int k = 0; k < f->class_count; k++)
            votes += std::string(" ") + f->classes[k].label + " " +
                     std::to_string(f->votes[k]);
        w.text(rel, algorithm_parameters, votes.c_str());
    }
    if (c->key_fallback)
        w.text(rel, algorithm_parameters, "key slice: central slice of the box");
    if (f->lossy_input)
        w.text(rel, algorithm_parameters, "input compressed with loss");
    w.text(rel, algorithm_parameters, HP_RUO_BANNER);
}

// Mean HU of the lesion in each phase, tied to its phase by the image it was
// taken from: no standard code names the phase of a measurement. The liver's HU
// stand in the algorithm's parameters, for this group speaks of the lesion.
void write_attenuation(const hp_report *r, const hp_candidate *c, Writer &w)
{
    const hp_findings *f = r->findings;

    for (int p = 0; p < HP_PHASES; p++) {
        const hp_phase phase = static_cast<hp_phase>(p);
        const hp_slice *s = hp_report__source(r, phase, hp_report__key_slice(f, c));

        if (!std::isfinite(c->hu_lesion[p]) || s == nullptr ||
            hp_report__shown_phase(f, phase) != phase)
            continue;
        auto num = w.number_below(attenuation, c->hu_lesion[p], 1, unit_hu);
        w.code(T::RT_hasConceptMod, derivation, mean);
        w.image(T::RT_inferredFrom, *s);
    }
}

hp_code write_lesion(const hp_report *r, int n, Writer &w, hp_error *reterr)
{
    const hp_findings *f = r->findings;
    const int i = hp_report_lesion(f, n);
    const hp_candidate *c = &f->candidates[i];
    const hp_slice *key = hp_report__source(r, HP_PHASE_V, hp_report__key_slice(f, c));
    const bool classified = f->outcome == HP_OUTCOME_CLASSIFIED && f->class_index >= 0;
    char text[128];
    double xy[10];

    if (key == nullptr)
        return hp_fail(reterr, HP_E_NOT_FOUND, "no source image for the key slice");
    hp_report__outline(f, c, key, xy);

    auto here = w.container(group, "1410");
    std::snprintf(text, sizeof text, "%sLesion %d",
                  r->tracking_prefix != nullptr ? r->tracking_prefix : "", n + 1);
    w.text(T::RT_hasObsContext, tracking_id, text);
    w.uid(T::RT_hasObsContext, tracking_uid,
          hp_result_uid(r->identity, "tracking", HP_SOP_COMPREHENSIVE_3D_SR, n).text);
    w.code(T::RT_contains, finding,
           classified ? class_code(f->classes[f->class_index])
                      : DSRCodedEntryValue(lesion));
    w.code(T::RT_hasConceptMod, finding_site, liver);
    write_algorithm(r, c, w);
    w.polyline(T::RT_contains, &image_region, xy, *key);
    {
        auto num =
            w.number_below(area, hp_report__outline_area_mm2(xy, key), 1, unit_mm2);
        w.polyline(T::RT_inferredFrom, nullptr, xy, *key);
    }
    w.number(long_axis, c->long_axis_mm > 0 ? c->long_axis_mm : NAN, 1, unit_mm);
    w.number(short_axis, c->short_axis_mm > 0 ? c->short_axis_mm : NAN, 1, unit_mm);
    w.number(volume, c->volume_ml > 0 ? c->volume_ml : NAN, 2, unit_ml);
    w.number(certainty_of_finding, 100 * c->score, 1, unit_percent);
    for (int k = 0; classified && k < f->class_count; k++) {
        auto num = w.number_below(certainty_of_impression, 100 * f->probabilities[k], 1,
                                  unit_percent);
        w.code(T::RT_hasConceptMod, finding, class_code(f->classes[k]));
    }
    // After the certainties: viewers show the first five numbers beside the box,
    // and a phase's HU without its phase would mislead.
    write_attenuation(r, c, w);
    hp_report__label(r, i, text, sizeof text);
    w.text(T::RT_contains, comment, text);
    return HP_OK;
}

hp_code write_measurements(const hp_report *r, DSRDocument &doc, hp_error *reterr)
{
    Writer w(doc.getTree());

    w.root(report_title, "1500");
    language_of_report(w);
    observer_context(r, w);
    w.code(T::RT_hasConceptMod, procedure_reported,
           Code{"25045-6", "LN", "CT unspecified body region"});
    write_image_library(r, w, doc);
    auto here = w.container(measurements);
    for (int n = 0; hp_report_lesion(r->findings, n) >= 0; n++) {
        hp_code c = write_lesion(r, n, w, reterr);

        if (c != HP_OK)
            return c;
    }
    return HP_OK;
}

void write_note(const hp_report *r, DSRDocument &doc)
{
    Writer w(doc.getTree());
    hp_report__note note;

    hp_report__write_note(r, &note);
    check(doc.getCodingSchemeIdentification().addItem("99HEPAR"));
    check(doc.getCodingSchemeIdentification().setCodingSchemeName("hepar private codes"));
    check(doc.getCodingSchemeIdentification().setCodingSchemeResponsibleOrganization(
        "hepar project"));
    w.root(note_title, nullptr);
    language_of_report(w);
    observer_context(r, w);
    auto here = w.container(findings_heading);
    for (int i = 0; i < note.count; i++) {
        char text[2100];

        std::snprintf(text, sizeof text, "%s\n%s", note.section[i].heading,
                      note.section[i].text);
        w.text(T::RT_contains, finding, text);
    }
}

void supersede(const hp_report *r, DSRDocument &doc)
{
    const hp_result_predecessor *p = r->predecessor;

    if (p != nullptr)
        check(doc.getPredecessorDocuments().addItem(r->identity->study_uid.text,
                                                    p->series.text, p->sop_class.text,
                                                    p->sop_instance.text));
}

} // namespace

hp_code hp_sr_write(const hp_report *r, const char *path, hp_uid *ret_sop_instance,
                    hp_uid *ret_sop_class, hp_error *reterr)
{
    const bool measured = hp_report_is_measurement(r->findings);
    const hp_result_kind kind = measured ? HP_RESULT_SR : HP_RESULT_NOTE_SR;

    hp::silence_dcmtk();
    return hp::building("structured report", reterr, [&]() -> hp_code {
        DSRDocument doc(measured ? T::DT_Comprehensive3DSR : T::DT_BasicTextSR);
        DcmFileFormat file;
        hp_code c = HP_OK;

        if (measured)
            c = write_measurements(r, doc, reterr);
        else
            write_note(r, doc);
        if (c != HP_OK)
            return c;
        supersede(r, doc);
        if (measured)
            check(doc.setPreliminaryFlag(T::PF_Final));
        check(doc.completeDocument("Research use only"));
        check(doc.write(*file.getDataset()));
        c = hp::dress(r, kind, 0, "SR", *file.getDataset(), reterr);
        if (c == HP_OK)
            c = hp::write_file(file, path, reterr);
        if (c != HP_OK)
            return c;
        *ret_sop_instance = hp_report__instance_uid(r, kind, 0);
        std::snprintf(ret_sop_class->text, sizeof ret_sop_class->text, "%s",
                      hp_result_kind_sop_class(kind));
        return HP_OK;
    });
}
