/* DICOM dates and times as seconds, to compare only. Inside the room only. */
#ifndef HP_DICOM_DATETIME_H
#define HP_DICOM_DATETIME_H

#ifdef __cplusplus
extern "C" {
#endif

/* DA "20261124" or "2026.11.24" (ACR-NEMA) and TM "134501.25", "13:45:01", "1345"
 * -> seconds since 1970 as if UTC. NAN when either is absent or not readable. */
double hp_da_tm_seconds(const char *da, const char *tm);

/* DT "20261124134501.25&ZZXX"; the zone is ignored, since all times of one
 * study share it. NAN when shorter than a day and an hour, or not readable. */
double hp_dt_seconds(const char *dt);

#ifdef __cplusplus
}
#endif
#endif
